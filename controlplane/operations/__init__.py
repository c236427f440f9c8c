"""Carrying plans out, durably.

`engine` stands on DBOS (the only module that imports it) and calls `runner` for each operation; `runner` walks the
plan's stages and lets `step` run each one; `ending` opens and closes the operation's rows; `execution` writes all of
them under the cluster's fencing number; `steps` hold the handlers. `membership` takes over from dead control planes.

Why a step's outcome is a value and never an exception for the engine: a recorded value replays the same on every
control plane, while an exception would have to survive serialization with its type to take the same branch again.
"""
