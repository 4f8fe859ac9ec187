"""Measurements that an operator or a reviewer can repeat, each with servers of its own.

- `relay`: how fast the relay drains a backlog, beside a bare idempotent producer that sends the same records
- `changes`: metadata-only changes a second through API, outbox and topic, and how soon each is on the topic
- `uploads`: small uploads a second, bytes on disk and events on the topic included
- `projector`: topic to rows, beside a floor, Redis Streams and Kafka Connect; or alone, into tables of several sizes
- `latency`: how soon a SELECT sees what was appended or uploaded, at fixed rates and beside a backlog
- `search`: a call of search and a request over HTTP, by classes of questions; plans of each (`search_explained`), and
  what each index costs whoever applies events (`search_indexes`)
- `relevance`: whether search finds what people mean, by judged questions (`judgements`, `distractors`)
- `backfill`: an older system's rows taken over, a second

They share `servers` (an embedded Kafka and Postgres), `samples` (events of a working archive), `backlog` (what the
real relay takes to a topic), `open_loop` and `visible` (appends at a rate, and when a SELECT sees each) and `report`
(rounds in alternating order, medians and spread, so that a neighbour's noise hits all that is compared). The
projector's: `projecting` (the real process, timed), `full_table` (what all fill, and whether it is right),
`filled_table` (many files beforehand), and the peers `floor`, `redis_streams` and `connect_sink`. That of search:
`search_words` and `search_rows` (files to be found), `search_pools` (what is asked) and `search_answers` (whether it is
answered rightly).
"""
