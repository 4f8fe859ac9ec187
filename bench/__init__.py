"""Measurements that an operator or a reviewer can repeat, each with servers of its own.

- `relay`: how fast the relay drains a backlog, beside a bare idempotent producer that sends the same records
- `changes`: metadata-only changes a second through API, outbox and topic, and how soon each is on the topic
- `uploads`: small uploads a second, bytes on disk and events on the topic included
- `backfill`: an older system's rows taken over, a second

They share `servers` (an embedded Kafka and Postgres), `samples` (events of a working archive) and `report` (rounds in
alternating order, medians and spread, so that a neighbour's noise hits all that is compared).
"""
