"""The Admin module owns the truth: which files exist, and every change that is announced to the world.

In the order a change takes:

- `api`: the REST routes; `api_models`: what goes in and out; `upload`: a multipart body read as a stream
- `saga`: the steps of each change and how they are undone; `saga_log`: where each saga stands, in Postgres
- `storage`: bytes to and from a storage element
- `files`: the files table, revisions raised under the row's lock
- `outbox`: the event, written in the transaction that wrote the file
- `relay`: outbox rows to the topic, one owner a shard; `shards`: who owns which; `publisher`: one Kafka transaction
- `tables`, `migrations/`: the shape of database `artstore_admin`
- `metrics`, `settings`, `errors`; `api_process`, `relay_process`: each process wired; `__main__`: one verb each
"""
