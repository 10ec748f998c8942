"""The deciding half: values and policies, without awaiting, sleeping, logging, clock or chance.

`now` (float seconds on a monotonic clock) and jitter (a callable into [0, 1)) are arguments. Read
in this order: `model` (the nouns), `encoding` and `wire` (bytes), `intake` (the queue), `batching`,
`verdict`, `retry`, `pacing`, `ledger` (the policies), `engine` (composes them).
"""
