"""A stand-in for the control plane: the public control API served from memory, over real gRPC and TLS.

It is what the tests of console, command line and client talk to, and what someone who works on them starts with
`python -m console.fake`. It keeps the API's promises (permissions, errors, watches, one operation at a time per cluster,
cancel, retry, abandon, audit), but there is no AWS and no MongoDB behind it: clusters here are rows that change with time.
Everything is gone when it stops. It says so in its prices, in the details of its steps and in its server banner.
"""

from console.fake.control import FakeControl, serve_in_thread

__all__ = ["FakeControl", "serve_in_thread"]
