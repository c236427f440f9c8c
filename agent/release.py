"""Which agent this is."""

from importlib.metadata import version

AGENT_VERSION = version("wap")
PROTOCOL = 1
