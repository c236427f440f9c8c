"""The figures of the machine, of mongod and of the agent: one sample of all of them at each tick, into the buffer.

Each kind is read in a thread of its own and waited for only so long: a mongod that hangs costs its own figures, and the
machine's, which show why, come in time.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

import pymongo
from pymongo.errors import PyMongoError

from agent.logs import Log
from agent.mongod.supervisor import Supervisor
from agent.settings import NodePaths
from agent.telemetry.buffer import Buffer
from agent.telemetry.frames import Names
from agent.telemetry.pace import Pace
from agent.telemetry.reading import Client, MongodReader
from collector import mongod as mongod_figures
from collector.catalog import COLLECTION
from collector.host import HostSampler
from collector.mongod import MongodSampler
from collector.sharding import ShardingSampler
from collector.storage import StorageSampler

# How long a tick waits for mongod; what comes later is dropped.
ANSWER_SECONDS = 2.0
# How often those are asked who keep to a time budget and know themselves when they are due.
BUDGETED_SECONDS, BUDGETED_ANSWER_SECONDS = 5.0, 30.0
# What is told of each shard.
SHARD = ("sharding.chunks",)
Values = Mapping[str, float]
K = TypeVar("K")
V = TypeVar("V")
log = Log(__name__)


class Sampler:
    """Samples until cancelled. `own` gives the agent's figures."""

    def __init__(
        self, paths: NodePaths, mongod: Supervisor, buffer: Buffer, pace: Pace, own: Callable[[], Values]
    ) -> None:
        self._paths, self._mongod, self._buffer, self._pace, self._own = paths, mongod, buffer, pace, own
        # One for each thread: a slow look at collections must not keep the samples waiting.
        self._reader, self._storage_reader = MongodReader(paths, mongod), MongodReader(paths, mongod)
        self._host = HostSampler(self._volume, lambda: mongod.pid)
        self._figures, self._storage, self._sharding = MongodSampler(), StorageSampler(), ShardingSampler()
        self._host_thread, self._mongod_thread, self._storage_thread = (
            _Worker("host"),
            _Worker("mongod"),
            _Worker("storage"),
        )
        # Complete from the start where there are many objects, each of which needs a set: a stream takes only so many.
        self._names, self._names_of_collections, self._names_of_shards = Names(), Names(COLLECTION), Names(SHARD)
        # Of the node itself, from those who were asked since the last tick: told with the next one.
        self._sums: dict[str, float] = {}

    async def run(self) -> None:
        """Sample at each tick. Never returns."""
        await asyncio.gather(self._run_ticks(), self._run_budgeted())

    async def _run_ticks(self) -> None:
        while True:
            await self._pace.tick()
            try:
                await self._tick()
            except Exception:
                log.exception("a sample could not be taken")

    async def _tick(self) -> None:
        at, now = time.time(), time.monotonic()
        host, mongod = await asyncio.gather(
            self._host_thread.ask(lambda: self._host.sample(now), ANSWER_SECONDS),
            self._mongod_thread.ask(self._read_mongod, ANSWER_SECONDS),
        )
        sums, self._sums = self._sums, {}
        values = {**host, **mongod, **sums, **self._own()}
        await self._buffer.add([self._names.sample(at, values)])

    def _volume(self) -> Path:
        """Where mongod's data lie; the agent's own disk before there is a mongod."""
        goal = self._mongod.goal
        return self._paths.volume(goal.settings.volume_id) if goal is not None else self._paths.state

    def _read_mongod(self) -> Values:
        client = self._reader.client()
        if client is None:
            return {}
        with pymongo.timeout(ANSWER_SECONDS):
            documents = mongod_figures.read(client)
        return self._figures.sample(
            time.monotonic(), documents.server_status, documents.replset_status, documents.oplog
        )

    async def _run_budgeted(self) -> None:
        while True:
            await asyncio.sleep(BUDGETED_SECONDS)
            try:
                await self._sample_things(self._storage.sample, self._names_of_collections)
                await self._sample_things(self._sharding.sample, self._names_of_shards)
            except Exception:
                log.exception("sizes of collections could not be read")

    async def _sample_things(self, sample: Callable[[Client, float], Mapping[str, Values]], names: Names) -> None:
        """Namespaces or shards, each with a frame of its own, and their sums."""
        at = time.time()
        found = await self._storage_thread.ask(lambda: self._read_things(sample), BUDGETED_ANSWER_SECONDS)
        self._sums.update(found.pop("", {}))
        if found:
            await self._buffer.add([names.sample(at, values, thing) for thing, values in found.items()])

    def _read_things(self, sample: Callable[[Client, float], Mapping[str, Values]]) -> Mapping[str, Values]:
        client = self._storage_reader.client()
        return sample(client, time.monotonic()) if client is not None else {}


class _Worker:
    """One thread for one kind of figures. While it hangs there are none; what it says too late is dropped."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, f"telemetry-{name}")
        self._name = name
        self._running: asyncio.Future[object] | None = None
        # Why there are none now; told when it changes, not at each tick.
        self._problem = ""

    async def ask(self, read: Callable[[], Mapping[K, V]], within: float) -> dict[K, V]:
        """What `read` gives; nothing where that takes longer than `within` seconds, or fails."""
        if self._running is not None and not self._running.done():
            return {}
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._safely, read)
        self._running = cast("asyncio.Future[object]", asked)
        done, _ = await asyncio.wait({asked}, timeout=within)
        return dict(asked.result()) if done else {}

    def _safely(self, read: Callable[[], Mapping[K, V]]) -> Mapping[K, V]:
        try:
            found = read()
        except (PyMongoError, OSError) as error:
            self._tell(type(error).__name__)
        except Exception as error:
            if type(error).__name__ != self._problem:
                log.exception("a defect in the reading of figures", of=self._name)
            self._problem = type(error).__name__
        else:
            self._tell("")
            return found
        return {}

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.info("figures cannot be read" if problem else "figures are read again", of=self._name, why=problem)
        self._problem = problem
