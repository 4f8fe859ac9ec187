"""ArtStore on one machine: a real Kafka and a real Postgres from package registries, and every process beside them.

Nothing but the command line and the tests imports this package. From the ground up:

- `errors`: one base; each message is one sentence that says what to do next
- `settings`: the environment, read once
- `ports`: which ports are free, said before anything starts
- `jars`: the broker's jars, downloaded whole and verified, or not there at all
- `process`: one child process, its log, its end
- `waiting`: a coroutine run to its end from synchronous code; `health`: whether a process is ready, or why not
- `server`: what a broker and a database have in common; `kafka`, `postgres`: the two
- `unprivileged`: Postgres refuses root, so root lends it another user
- `services`: the four processes of ours, their environment and their addresses
- `state`: who runs in a home, and what a killed supervisor left behind
- `stack`: all of it, started in order and stopped in reverse
"""
