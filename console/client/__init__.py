"""The Python client of WAP: what the console, the command line and automation scripts talk to the product with.

    from console.client import Client

    with Client("wap.example.com:7443", ca_pem=open("ca.pem", "rb").read(), token="wap_...") as client:
        operation = client.create_cluster("demo", "orders", members=3)
        client.wait(operation.id)

`AsyncClient` is the same for asyncio. Both hold the typed generated stubs as `.clusters`, `.operations`, `.projects`,
`.nodes`, `.access`, `.metrics`, `.logs` and `.alerts`; every failed call raises `WapError` and nothing else.

Why the stubs stand on a wrapped channel and not on gRPC interceptors: an interceptor of grpc.aio that raises anything
but an AioRpcError leaves "Exception in callback" in the event loop's log, and a retry needs the whole call in one place.
"""

from console.client.asynchronous import AsyncClient
from console.client.errors import WapError
from console.client.progress import FINISHED, RESTING, is_finished, is_resting
from console.client.synchronous import Client

__all__ = ["FINISHED", "RESTING", "AsyncClient", "Client", "WapError", "is_finished", "is_resting"]
