"""What a person types. Knows everything below; nothing knows it.

- one verb a file: `up`, `down`, `status`, `demo`, `ingest`, `search`, `topics`, and `checks` for `test`
- `running`: the stack that a verb talks to; `logs`: its logs as one stream
- `folder`: what a folder holds; `uploading`: from there to the Admin API; `finding`: proof that all of it is found
- `terminal`, `progress`: how things are shown; `errors`: one sentence for each foreseen fault
"""
