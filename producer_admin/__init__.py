"""The Admin module owns the truth: which files exist, and every change that is announced to the world.

In the order a change takes:

- `api`: the REST routes; `api_models`: what goes in and out; `upload`: a multipart body read as a stream
- `saga`: the table of kinds and their executor; `saga_steps`: what each step does; `saga_log`: where each saga stands;
  `idempotency`: one change a key; `sagas_api`: the log over REST
- `saga_recovery`: sagas whose process has gone, taken up; `sweeper`: what has outlived its time
- `elements`: which storage elements there are and how they are; `element_registry`: the same in Postgres;
  `elements_api`: over REST; `placement`: where new bytes go; `marks`: no other place is taken for an element
- `storage`: what a storage element promises, opened by URL; `object_store`, `local_disk`: how it is kept
- `ranges`: which bytes a request for content gets
- `scrub`: the files table compared with the storage elements
- `backfill`: an older system's files taken over; `backfill_source`: its database, only read; `backfill_mapping`: its
  rows as files, or refused
- `republish`: the state of files announced again, for repairs; `republish_api`: the same over REST;
  `backpressure`: such verbs wait for the relay
- `sync`: what the Query side compares itself with; `sync_api`: over REST
- `trace`: how far the changes of one file have come on this side; `trace_api`: over REST
- `files`: the files table, revisions raised under the row's lock
- `outbox`: the event, written in the transaction that wrote the file
- `actions`: what operators did, on record; `actions_api`: over REST
- `relay`: outbox rows to the topic, one owner a shard; `shards`: who owns which; `publisher`: one Kafka transaction
- `tables`, `migrations/`: the shape of database `artstore_admin`; `roles`: who may do what in it
- `metrics`, `settings`, `errors`; `api_process`, `relay_process`: each process wired; `long_verb`: what verbs that run
  long share, each wired in its `*_process`; `__main__`: one verb each
"""
