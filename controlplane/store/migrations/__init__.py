"""Schema changes, numbered, never edited once released. `migrate` is run by every `wap server` at start."""
