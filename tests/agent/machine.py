"""A node as the sandbox would make one: a root directory, a volume, an address of its own, and a real agent process."""

import asyncio
import functools
import json
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pymongo
from wap.agent.v1 import command_pb2
from wap.type.v1 import failure_pb2

from agent.settings import NodePaths
from tests.agent.control import ControlPlane
from tests.agent.wire import MONGODB_PORT, Wire, command
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
# Other runs on the same machine have another one.
SUBNET = f"127.{random.randint(100, 200)}.{random.randint(1, 254)}"


class Machine:
    """One node. `certify` issues what its mongod needs; `destroy` ends its agent and its mongod."""

    def __init__(self, base: Path, other_end: ControlPlane | Wire, certify: Wire, ordinal: int, mongodb: Path) -> None:
        self.other_end, self.certify, self.ordinal, self.mongodb = other_end, certify, ordinal, mongodb
        self.id, self.ip = f"n{ordinal}", f"{SUBNET}.{10 + ordinal}"
        self.volume_id = f"vol-{secrets.token_hex(4)}"
        self.root = base / self.id
        self.paths = NodePaths(self.root)
        self.disk = base / f"{self.id}-disk"
        self.agent: subprocess.Popen[bytes] | None = None
        # The cluster's fencing number, in every command.
        self.epoch = 5
        # What the boot script told the agent.
        self.joined_with: dict[str, str] = {}

    @property
    def address(self) -> str:
        """host:port of its mongod."""
        return f"{self.ip}:{MONGODB_PORT}"

    async def boot(self, **changes: str) -> None:
        """Make root, volume and agent.json, and start the agent."""
        config = await self.other_end.join(self.id, ip=self.ip, volume_id=self.volume_id, ordinal=self.ordinal)
        self.paths.config.parent.mkdir(parents=True)
        self.joined_with = config | changes
        self.paths.config.write_text(json.dumps(self.joined_with))
        self.disk.mkdir(exist_ok=True)
        device = self.paths.device(self.volume_id)
        device.parent.mkdir(parents=True)
        device.symlink_to(self.disk)
        self.start_agent()

    def start_agent(self) -> None:
        """Start the agent."""
        with (self.root / "console.log").open("ab") as console:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "agent", "--root", str(self.root)],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/gen'}"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    async def end_agent(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal the agent and wait for its end: its exit code."""
        assert self.agent is not None
        self.agent.send_signal(number)
        return await asyncio.to_thread(self.agent.wait, 20)

    async def connected(self) -> None:
        """The agent has a session."""
        await self.other_end.connected(self.id)

    async def send(self, command_id: str = "", *, within: float = 60.0, **body: Any) -> command_pb2.CommandResult:
        """Send one command, `send(stop_mongod=StopMongod())`, and return what came of it."""
        return await self.other_end.order(self.id, command(command_id, epoch=self.epoch, within=within, **body))

    async def order(self, command_id: str = "", *, within: float = 60.0, **body: Any) -> command_pb2.CommandResult:
        """Send one command that must succeed."""
        result = await self.send(command_id, within=within, **body)
        assert not result.HasField("failure"), result.failure
        return result

    async def refusal(self, *, within: float = 60.0, **body: Any) -> failure_pb2.Failure:
        """Send one command that must fail, and return how."""
        result = await self.send(within=within, **body)
        assert result.HasField("failure"), result
        return result.failure

    async def start_order(self) -> command_pb2.StartMongod:
        """A good StartMongod for this node, whose key is made on the way."""
        csr = (await self.order(create_member_key=command_pb2.CreateMemberKey())).create_member_key.csr_pem
        return self.certify.start_order(csr, self.ip, self.volume_id, self.mongodb)

    async def start_mongod(self) -> int:
        """Volume, key and mongod as an operation orders them: its pid."""
        await self.order(prepare_volume=command_pb2.PrepareVolume(volume_id=self.volume_id))
        return (await self.order(start_mongod=await self.start_order())).start_mongod.pid

    def member(self) -> command_pb2.ReplicaSetMember:
        """This node as a member of a set."""
        return command_pb2.ReplicaSetMember(id=self.ordinal, host=self.address, priority=1, votes=1)

    async def initiate(self) -> None:
        """The set rs0 with this node alone."""
        member, millis = self.member(), 200
        body = command_pb2.InitiateReplicaSet(replica_set="rs0", member=member, heartbeat_interval_millis=millis)
        await self.order(initiate_replica_set=body)

    def mongod_pid(self) -> int:
        """Pid of the mongod that the agent has on record, while it lives; else 0."""
        try:
            pid = int(json.loads(self.paths.mongod_pid.read_text())["pid"])
            return pid if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else 0
        except (OSError, ValueError, psutil.Error):
            return 0

    def client(self, **options: Any) -> "pymongo.MongoClient[dict[str, Any]]":
        """A client of this mongod alone, over TLS, as nobody unless the options say who."""
        ca_file = self.root / "client-ca.pem"
        ca_file.write_text(self.certify.cluster.ca_pem)
        return pymongo.MongoClient(
            self.ip,
            MONGODB_PORT,
            tls=True,
            tlsCAFile=str(ca_file),
            directConnection=True,
            serverSelectionTimeoutMS=5000,
            **options,
        )

    def log(self) -> str:
        """The agent's log."""
        return self.paths.agent_log.read_text() if self.paths.agent_log.exists() else ""

    def destroy(self) -> None:
        """End everything that belongs to the node."""
        if self.agent is not None and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGCONT)
            self.agent.kill()
            self.agent.wait(10)
        for process in psutil.process_iter(["cmdline"]):
            if str(self.paths.mongod_config) in (process.info["cmdline"] or []):
                process.kill()
                wait_until(functools.partial(_is_over, process), within=10)


def _is_over(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
