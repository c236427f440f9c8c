"""Sending requests to AWS: off the event loop in a bounded pool, one client per way of sending, failures named."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from controlplane.cloud.errors import failure

T = TypeVar("T")
THREADS = 16
CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
# Sends in total, not repeats: 5 means four repeats, with botocore's own back-off and jitter.
SENDS = 5


class Calls:
    """EC2 (and SSM parameters) of one region. Endpoint and credentials are found as boto3 does."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"aws-{region}")
        self._session: boto3.session.Session | None = None
        self._clients: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a request that may be repeated: botocore repeats it when it is throttled or the reply is lost."""
        return await self._in_thread(lambda: self._send("ec2", method, SENDS, arguments), method)

    async def once(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a request that must not be repeated blindly: a create."""
        return await self._in_thread(lambda: self._send("ec2", method, 1, arguments), method)

    async def pages(self, method: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        """The items below `key` from all pages of a Describe call."""

        def collect() -> list[dict[str, Any]]:
            paginator = self._client("ec2", SENDS).get_paginator(method)
            return [item for page in paginator.paginate(**arguments) for item in page.get(key, [])]

        return await self._in_thread(collect, method)

    async def parameter(self, name: str) -> str:
        """The value of an SSM parameter."""
        arguments = {"Name": name}
        reply = await self._in_thread(lambda: self._send("ssm", "get_parameter", SENDS, arguments), "get_parameter")
        return str(reply["Parameter"]["Value"])

    def close(self) -> None:
        """Let the threads end; calls under way are finished, not waited for."""
        self._pool.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T], method: str) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            raise failure(error, _action(method), self.region) from None

    def _send(self, service: str, method: str, sends: int, arguments: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = getattr(self._client(service, sends), method)(**arguments)
        return reply

    def _client(self, service: str, sends: int) -> Any:
        # Making a client is not thread-safe; using it is.
        with self._lock:
            if (service, sends) not in self._clients:
                self._session = self._session or boto3.session.Session(region_name=self.region)
                config = Config(
                    retries={"mode": "standard", "total_max_attempts": sends},
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    max_pool_connections=THREADS,
                )
                make: Callable[..., Any] = self._session.client
                self._clients[service, sends] = make(service, config=config)
            return self._clients[service, sends]


def _action(method: str) -> str:
    """EC2's name of a boto3 method: run_instances -> RunInstances."""
    return "".join(part.capitalize() for part in method.split("_"))
