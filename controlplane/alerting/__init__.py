"""Alerts: rules are held against what was measured, people are told, and what failed to reach them is tried again.

Two tasks of their own, never the operation queue: `evaluate` looks at everything every ten seconds and writes what has
changed, with the messages to be sent, in one transaction; `notify` sends what waits, as slowly as a channel is slow. So
a stuck operation delays no alert, and a dead mail server delays no evaluation. With several control planes each holds
rules against the nodes whose agents it hears, and one of them looks after what stands in the database (see `evaluate`).
"""
