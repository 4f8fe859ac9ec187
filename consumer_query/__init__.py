"""The Query module answers searches from a cache that the topic alone can rebuild.

In the order a record takes:

- `projector`: the consumer group's member; batches in, transactions out, offsets committed last
- `positions`: where each partition is applied up to, and where a new assignment starts
- `projection`: records folded to the newest state of each file; no I/O
- `analysis`: text made ready for the index, the same for what is stored and what is asked
- `read_model`: one statement that writes a batch through the revision fence
- `generations`: the table behind the view, by number
- `search`: the question; `api`: its REST routes
- `tables`, `migrations/`: the shape of database `artstore_query`, all but the generations
- `metrics`, `settings`, `errors`; `api_process`, `projector_process`: each process wired; `__main__`: one verb each
"""
