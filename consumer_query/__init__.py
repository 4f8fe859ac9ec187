"""The Query module answers searches from a cache that the topic alone can rebuild.

In the order a record takes:

- `projector`: the consumer group's member; it seeks partitions to their `positions` and feeds their `buffers`
- `starts`: where partitions begin; `guards`: verdicts on whether the rows are of this log and missed nothing of it;
  `log_evidence`: what the log shows; `doubts`: what speaks against a generation, kept; `cache_guard`: the watch over it
- `lanes`: batches of whole partitions, each in one transaction; `breaker`: unless most of it is bad; `faults`: what an
  error means for a batch; `batch_spans`: what traces tell of it; `points`: where tests end the process
- `records`: a record read, or refused with a reason; `projection`: folded to the newest state of each file
- `analysis`: text made into lexemes, the same for what is stored and what is asked; `stop_words`: those left out
- `read_model`: one statement that writes a batch through the revision fence; `commits`: offsets, behind the rows,
  once those are on disk (`durable`)
- `generations`: the table behind the view, by number; `pending_list`: its search index kept ready
- `rebuild_jobs`: rebuilds asked for, as rows; `rebuild_loader`, `newest`: a generation filled; `catch_up`, `parity`:
  brought to where the live one is and compared with it; `rebuild`: from one phase to the next, up to the swap;
  `rebuild_worker`: by whom
- `rebuild_progress`: how far that is; `previous_generation`: the one before; `rebuild_api`: for operators
- `dead_letters`: records that cannot be applied, put aside; `dead_letter_log`, `resolutions`: what is there, and what
  became of it; `redrive`: tried again, or asked for anew (`admin_client`); `dead_letters_api`: for operators
- `reconcile`: cache and truth compared by sums of digests; `sides`: the cache to be read so, `admin_client`: the truth;
  `confirm`: what differs, looked at again when all has arrived; `full_sync`: and repaired through the topic;
  `findings`: what came of it; `topic_side`: the topic compared likewise
- `trace`: which station holds a file's newest change up; `trace_facts`: what each tells, `trace_words`: in words,
  `trace_api`: over REST
- `sync_reports`: comparisons asked for, as rows; `sync_worker`: made; `sync_api`: for operators
- `asking`: what people type made into a query of those lexemes; `search`: the question; `search_api`: its REST routes,
  `search_values`, `search_parameters`: what they take, `export`: all hits as a stream; `api`: one file
- `vocabulary`: the lexemes that there are, counted now and then (`vocabulary_worker`), for plans, `corrections` of what
  was mistyped, and `suggest`: how what is being typed may go on
- `tables`, `migrations/`: the shape of database `artstore_query`, all but the generations; `roles`: who may do what
- `metrics`, `settings`, `errors`; `api_process`, `projector_process`, `maintenance_process`: each process
  wired; `__main__`: one verb each
"""
