"""What nodes measured and logged: taken in from agents, kept in a store behind a port, and answered from there.

The way of the data: `ingest` checks what an agent reports and hands it to the hot hour (memory, for live charts and
alerts), to the tail (for those who follow), and to the outbox, which writes to the stores at its own pace, so that a
store that is slow, full or away never holds up an agent. Stores stand behind two ports (`port`): MetricStore and LogStore.
"""
