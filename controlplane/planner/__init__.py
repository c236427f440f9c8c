"""Planners decide, purely: (wish, slots) -> Plan. No clock, no ids, no I/O; steps act on what a plan says."""
