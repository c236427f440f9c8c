"""A control plane in a process of its own: store, engine, runner and membership as the server starts them, no API.

    python -m tests.operations.driver '{"db": ..., "fleet": ..., ...}'

Says one line of JSON when it works, and works until SIGTERM.
"""

import asyncio
import json
import signal
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from controlplane.fleet.fake import SimulatedFleet
from controlplane.operations.engine import Engine
from controlplane.operations.membership import Membership
from controlplane.operations.runner import OperationRunner
from controlplane.server import crash_point
from controlplane.store.database import Database
from tests.operations.world import POLL_SECONDS, Identity, make_tools, quick_cloud


@dataclass(frozen=True)
class Order:
    """What to be. `pace` is seconds per command of the simulated agents."""

    db: str
    fleet: str
    install_id: str
    install_key: str
    executor_id: str = "embedded"
    crash_at: str = ""
    pace: float = 0.0

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


async def work(order: Order) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database, cloud = Database(order.db), quick_cloud()
    await database.bus.start()
    identity = Identity(order.install_id, bytes.fromhex(order.install_key))
    fleet = SimulatedFleet(Path(order.fleet), pace=order.pace)
    tools = await make_tools(database, fleet, identity, cloud)
    engine = Engine(database, order.executor_id, poll_seconds=POLL_SECONDS)
    membership = Membership(order.db, order.executor_id, engine.take_over) if database.is_postgres else None
    if membership is not None:
        await membership.join()
    await engine.launch(OperationRunner(replace(tools, boundary=crash_point(order.crash_at))))
    if membership is not None:
        membership.start()
    print(json.dumps({"executor": order.executor_id}), flush=True)
    await stop.wait()
    await engine.close()
    if membership is not None:
        await membership.leave()
    cloud.close()
    await database.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(work(Order(**json.loads(sys.argv[1]))))
