"""The store: SQLAlchemy on SQLite (embedded default, one process) or PostgreSQL (several control planes).

Queries are plain functions per noun whose first argument is the open transaction (`Session`). Transactions are run by
`Database.read` and `Database.write`, in a worker thread: no coroutine runs inside one, so no network call to AWS or an
agent can happen while a transaction is open.
"""
