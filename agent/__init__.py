"""The agent: one on every node, the only one that talks to its mongod. Imports nothing of console or controlplane.

Reading order: daemon (what runs), enroll and identity (who we are), connection, session and renewal (the stream),
executor and journal (orders), handlers (one file per family of orders), mongod (what is done; supervisor first), observe
and telemetry (what is told: now and then, and all that was measured and logged).

Two rules bind every part. mongod outlives the agent: it runs in a session of its own and is adopted again after a
restart. And the agent works alone: goal.json says what must run, so a dead mongod comes back with the control plane away.

MongoDB is asked through pymongo's asyncio client instead of threads, so that a deadline really ends a call; only figures
are read in threads, where a late answer is dropped.
"""
