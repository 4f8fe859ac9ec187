"""What both services stand on. Knows the contract (`schemas`), never a service.

- `settings`: the part of the environment that every process reads
- `kafka`, `postgres`, `engine`: clients made one way everywhere, and their checks at start
- `migrations`: a database brought to its newest shape, safe to run twice at once; `roles`: who may do what in one, and
  `role_options`: how its verb is told
- `brokers`: how Kafka is spoken to, one value for every client; `tokens`: what it is
  logged in to with; `acls`: who may do what there
- `topics`: topics made from their cards, and where a broker differs from them
- `acknowledged`, `whole_topic`: a small topic of one partition written for certain, and read whole
- `errors`, `http`: one base for what can go wrong, mapped to problem+json in one place
- `connections`, `front`: what a request passes before any route sees it; `rates`: how often a client may ask;
  `answers`: the headers of every answer
- `auth`: who is let in; `access_tokens`: whether a token is believed; `issuer_keys`: by whose keys;
  `service_token`: what a service shows to another; `dev_tokens`: tokens for trying out
- `health`: what a process answers on its management port
- `process`: start, signals, drain, exit; `starting`: it waits for what it needs
- `retries`: how long to wait before trying again
- `progress`: one bar for everything that counts
- `logging`: structured logs, for a terminal or for a collector; `escapes`: what others wrote is shown and not obeyed
- `tracing`: one trace from a request to a row of search; `span_export`: how spans leave a process
"""
