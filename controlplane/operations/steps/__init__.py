"""Step handlers: each makes one thing true (observe; if already so, say so; act; verify) and returns one sentence."""
