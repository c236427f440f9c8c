"""`wap`, the command line: people get tables and progress, programs get `--output json` and exit codes that mean something.

Every command is a function that receives a `Session` (who am I, where is the control plane, how to answer) and is put on
its app by `Commands`, which adds the options that all share and turns failures into exit codes. `server`, `agent`,
`console` and `sandbox` are other programs, found by entry point and loaded only when they are called.
"""
