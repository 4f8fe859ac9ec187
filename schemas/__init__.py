"""The contract between Admin and Query: one topic, one event, one encoding.

In the order a record meets them:

- `events`: the file event as both sides hold it in memory
- `codec`: a file event to bytes and back, for every schema version ever written
- `avro/`: those versions, kept for ever, because a compacted topic may hold records of any of them
- `examples/`: golden records of each version, byte for byte
- `keys`: on which partition a file's records are
- `file_view`: a file as both REST APIs answer it
- `trace_views`: what Admin tells Query of a file's way to the topic
- `topics`: the topic's card (who writes, who reads, how it is configured and why)
"""
