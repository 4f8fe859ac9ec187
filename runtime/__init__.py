"""What both services stand on. Knows the contract (`schemas`), never a service.

- `settings`: the part of the environment that every process reads
- `kafka`, `postgres`, `engine`: clients made one way everywhere, and their checks at start
- `migrations`: a database brought to its newest shape, safe to run twice at once; `roles`: who may do what in one
- `topics`: topics made from their cards, and where a broker differs from them
- `acknowledged`, `whole_topic`: a small topic of one partition written for certain, and read whole
- `errors`, `http`: one base for what can go wrong, mapped to problem+json in one place
- `health`: what a process answers on its management port
- `process`: start, signals, drain, exit; `starting`: it waits for what it needs
- `retries`: how long to wait before trying again
- `progress`: one bar for everything that counts
- `logging`: structured logs, for a terminal or for a collector
- `tracing`: one trace from a request to a row of search; `span_export`: how spans leave a process
"""
