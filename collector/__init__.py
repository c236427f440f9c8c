"""What is measured and how: the vocabulary, the sampling and the arithmetic of telemetry. No wire, no database, no cloud.

Metrics: `catalog` names them all; `rates` makes rates of counters; `host`, `mongod` (with `replica_set`), `storage` and
`sharding` are the samplers, plain synchronous classes for a thread of the agent. Logs: `follow` reads lines, `logs` takes
them apart, `redaction` removes the values of users' queries, `limit` drops floods, `slow` and `advice` judge slow queries.
"""
