"""The control plane, from top to bottom: server, api, operations, fleet and cloud, store, planner, domain."""
