"""What runs in an agent, and in which order it comes and goes.

mongod is looked after first and without asking anybody; the control plane comes second. A stop ends the agent alone.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from agent.clock import ServerClock
from agent.connection import Connection
from agent.enroll import EnrollmentRefusedError, ensure_enrolled
from agent.executor import Executor
from agent.failure import FailureCode, NodeFailure
from agent.files import PRIVATE, make_private_directory
from agent.identity import Identity
from agent.journal import Epoch, Journal
from agent.logs import Log, open_logs
from agent.mongod import rotation
from agent.mongod.supervisor import Supervisor
from agent.node import Node
from agent.observe import Observer
from agent.release import AGENT_VERSION
from agent.session import Listener
from agent.settings import NodePaths, load_config
from agent.telemetry.pace import Pace
from agent.telemetry.station import Telemetry

# A node that was refused is looked at by a person, who may give it another token; until then it keeps quiet.
REFUSED_SECONDS = 300.0
GOODBYE_SECONDS = 2.0
log = Log(__name__)


async def run(root: Path) -> None:
    """Be the agent of this node until SIGTERM or SIGINT. Raises NodeFailure where it cannot be."""
    paths = NodePaths(root)
    with only_agent(paths):
        open_logs(paths.agent_log)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        log.info("agent begins", version=AGENT_VERSION, root=str(root), pid=os.getpid())
        await _serve(paths, stop)
        log.info("agent ends; mongod is left as it is")


@contextlib.contextmanager
def only_agent(paths: NodePaths) -> Iterator[None]:
    """Hold the node's lock, which ends with the process. Raises NodeFailure when another agent has it."""
    make_private_directory(paths.state)
    handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NodeFailure(FailureCode.INTERNAL, f"another agent already runs on {paths.root}") from None
        yield
    finally:
        os.close(handle)


async def _serve(paths: NodePaths, stop: asyncio.Event) -> None:
    config = load_config(paths.config)
    clock = ServerClock()
    observer = Observer(clock)
    mongod = Supervisor(paths, observer.look)
    pace = Pace()
    node, telemetry = Node(config.node_id, paths, mongod, pace), Telemetry(paths, mongod, pace)
    journal, epoch, connection = Journal(paths.journal), Epoch(paths.epoch), Connection(paths)
    executor = Executor(node, journal, epoch, clock, connection.send)
    listener = Listener(
        node_id=config.node_id,
        clock=clock,
        epoch=epoch,
        observer=observer,
        telemetry=telemetry,
        take=executor.take,
        renewed=connection.renewed,
    )
    works = (
        mongod.watch(),
        observer.watch(node, lambda: executor.busy),
        telemetry.gather(),
        rotation.keep_small(mongod, paths.mongod_log),
    )
    watches = [asyncio.create_task(work) for work in works]
    link = asyncio.create_task(_stay_connected(paths, connection, listener))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopping, link, *watches}, return_when=asyncio.FIRST_COMPLETED)
        for task in (link, *watches):
            if task.done():
                task.result()  # none of them ends by itself but by a defect
    finally:
        for task in watches:  # mongod may be stopped together with us: that is not to be repaired
            task.cancel()
        await executor.close()
        if connection.say_goodbye("the agent was told to stop"):
            await asyncio.wait({link}, timeout=GOODBYE_SECONDS)
        link.cancel()
        stopping.cancel()
        await asyncio.gather(link, stopping, *watches, return_exceptions=True)
        await telemetry.close()
        await mongod.close()
        journal.close()


async def _stay_connected(paths: NodePaths, connection: Connection, listener: Listener) -> None:
    await connection.run(await _enrolled(paths), listener)


async def _enrolled(paths: NodePaths) -> Identity:
    """The node's identity. Where it is refused, it looks again now and then whether it was given another token."""
    while True:
        try:
            return await ensure_enrolled(paths, load_config(paths.config))
        except (EnrollmentRefusedError, NodeFailure) as refusal:
            log.error("this node cannot enrol", why=str(refusal), next_attempt_seconds=REFUSED_SECONDS)
        await asyncio.sleep(REFUSED_SECONDS)
