"""The Query module answers searches from a cache that the topic alone can rebuild.

In the order a record takes:

- `projector`: the consumer group's member; it seeks partitions to their `positions` and feeds their `buffers`
- `lanes`: batches of whole partitions, each in one transaction; `breaker`: unless most of it is bad; `faults`: what an
  error means for a batch; `points`: where tests end the process
- `records`: a record read, or refused with a reason; `projection`: folded to the newest state of each file
- `analysis`: text made into lexemes, the same for what is stored and what is asked; `stop_words`: those left out
- `read_model`: one statement that writes a batch through the revision fence; `commits`: offsets, behind the rows
- `generations`: the table behind the view, by number; `pending_list`: its search index kept ready
- `dead_letters`: records that cannot be applied, put aside; `dead_letter_log`, `resolutions`: what is there, and what
  became of it; `redrive`: tried again, or asked for anew (`admin_client`); `dead_letters_api`: for operators
- `asking`: what people type made into a query of those lexemes; `search`: the question; `api`: its REST routes
- `tables`, `migrations/`: the shape of database `artstore_query`, all but the generations
- `metrics`, `settings`, `errors`; `api_process`, `projector_process`: each process wired; `__main__`: one verb each
"""
