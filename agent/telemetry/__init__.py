"""Telemetry: the node's figures every ten seconds and its log lines, on a stream of their own.

Reading order: `station` (what runs), `sampling` and `follow` (what comes in; the arithmetic is the collector's),
`buffer` over `database` (what waits, on disk), `stream` (what goes out).

Sampling goes on with the control plane away; the stream then catches up. Nothing here keeps anybody else waiting:
everything that blocks runs in threads of its own, and what goes wrong is counted and told instead of raised.
"""
