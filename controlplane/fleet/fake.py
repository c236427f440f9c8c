"""A fleet without machines: agents that answer every command plausibly, for tests of operations.

Its state is one JSON file, which outlives a killed control plane as real agents do. Like a real agent it keeps a
journal: a command id is carried out once, a repeat gets the first answer, and how often each id really took effect is
counted, so that a test can find a double. It refuses what a real agent would refuse in the state that it is in.
"""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from wap.agent.v1 import command_pb2
from wap.type.v1 import failure_pb2

from controlplane.domain.clock import Clock, SystemClock
from controlplane.domain.failure import AgentFailure, FailureCode
from controlplane.fleet.fake_node import Machine, Refusal, carry_out
from controlplane.fleet.port import OnWaiting


@dataclass(frozen=True)
class Fault:
    """The next `times` commands of this kind (on this node, or on any) fail with this code."""

    body: str
    code: FailureCode
    node_id: str = ""
    times: int = 1
    retryable: bool = False
    # Whether the command takes effect all the same: "done, but the answer was bad".
    after_effect: bool = False


class SimulatedFleet:
    """Implements `fleet.port.Fleet` with a file instead of machines. `pace` is seconds per command and per boot."""

    def __init__(self, file: Path, *, pace: float = 0.0, clock: Clock | None = None) -> None:
        self._file, self._pace, self._clock = file, pace, clock or SystemClock()

    async def await_agent(self, node_id: str, *, within: float, on_waiting: OnWaiting) -> None:
        """Every agent connects after one pace, unless it was told to stay silent."""
        await on_waiting(f"agent of {node_id} to connect")
        await asyncio.sleep(min(self._pace, within))
        if node_id in (await asyncio.to_thread(self._read))["silent"]:
            raise AgentFailure(
                FailureCode.AGENT_SILENT, f"the agent of {node_id} did not connect within {within:.0f} s"
            )
        await asyncio.to_thread(self._connect, node_id)

    async def call(
        self, node_id: str, command: command_pb2.Command, *, operation_id: str, on_waiting: OnWaiting
    ) -> command_pb2.CommandResult:
        """The command's result, from the journal when the id is known."""
        await on_waiting(f"{command.WhichOneof('body')} on {node_id}")
        result = await asyncio.to_thread(self._carry_out, node_id, command)
        await asyncio.sleep(self._pace)
        if result.HasField("failure"):
            name = failure_pb2.FailureCode.Name(result.failure.code).removeprefix("FAILURE_CODE_")
            raise AgentFailure(FailureCode(name), result.failure.message, retryable=result.failure.retryable)
        return result

    def fail(self, fault: Fault) -> None:
        """Make commands fail."""
        with self._state() as state:
            state["faults"].append(asdict(fault))

    def silence(self, node_id: str) -> None:
        """This node's agent never connects."""
        with self._state() as state:
            state["silent"].append(node_id)

    def forget(self, node_id: str) -> None:
        """The machine was terminated: its disk and its journal are gone."""
        with self._state() as state:
            state["machines"].pop(node_id, None)
            state["silent"] = [silent for silent in state["silent"] if silent != node_id]

    def machines(self) -> dict[str, Machine]:
        """What became of each node."""
        return {node_id: Machine.from_json(machine) for node_id, machine in self._read()["machines"].items()}

    def effects(self) -> Counter[str]:
        """How often each command id took effect: never more than once, if the journal holds."""
        return Counter({command_id: entry["effects"] for command_id, entry in self._read()["journal"].items()})

    def deliveries(self) -> Counter[str]:
        """How often each command id arrived."""
        return Counter({command_id: entry["deliveries"] for command_id, entry in self._read()["journal"].items()})

    def _connect(self, node_id: str) -> None:
        with self._state() as state:
            state["machines"].setdefault(node_id, Machine().to_json())

    def _carry_out(self, node_id: str, command: command_pb2.Command) -> command_pb2.CommandResult:
        with self._state() as state:
            key, body_digest = f"{node_id}/{command.id}", _digest(command)
            entry = state["journal"].setdefault(
                key, {"digest": body_digest, "effects": 0, "deliveries": 0, "result": None}
            )
            entry["deliveries"] += 1
            if entry["digest"] != body_digest:
                return _failed(command, FailureCode.COMMAND_ID_REUSED, "this id was used for another command")
            if entry["result"] is not None:
                result = command_pb2.CommandResult.FromString(base64.b64decode(entry["result"]))
                result.replayed = True
                return result
            stale = self._stale(state, node_id, command)
            if stale is not None:  # not for the journal: the same id may come again under a newer epoch
                return stale
            result = self._first_time(state, node_id, command, entry)
            entry["result"] = base64.b64encode(result.SerializeToString()).decode()
            return result

    def _stale(
        self, state: dict[str, Any], node_id: str, command: command_pb2.Command
    ) -> command_pb2.CommandResult | None:
        seen = state["machines"].get(node_id, {}).get("epoch", 0)
        if command.epoch < seen:
            return _failed(command, FailureCode.STALE_EPOCH, f"epoch {command.epoch} is behind {seen}")
        if command.HasField("deadline") and command.deadline.ToDatetime(UTC) <= self._clock.now():
            return _failed(command, FailureCode.DEADLINE_PASSED, "the deadline has passed")
        return None

    def _first_time(
        self, state: dict[str, Any], node_id: str, command: command_pb2.Command, entry: dict[str, Any]
    ) -> command_pb2.CommandResult:
        machines = {name: Machine.from_json(value) for name, value in state["machines"].items()}
        machine = machines.setdefault(node_id, Machine())
        machine.epoch = command.epoch
        fault = _take_fault(state, node_id, command)
        if fault is None or fault["after_effect"]:
            try:
                result = carry_out(machines, node_id, command, _member_request)
            except Refusal as refusal:
                return _failed(command, refusal.code, str(refusal), retryable=refusal.retryable)
            entry["effects"] += 1
        state["machines"] = {name: value.to_json() for name, value in machines.items()}
        if fault is not None:
            message = f"injected: {command.WhichOneof('body')} failed"
            return _failed(command, FailureCode(fault["code"]), message, retryable=fault["retryable"])
        return result

    @contextlib.contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        """Read, change, write as one: several control planes may share the file, and any may be killed."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self._read()
            yield state
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps(state))
            os.replace(fresh, self._file)

    def _read(self) -> dict[str, Any]:
        if not self._file.exists():
            return {"machines": {}, "journal": {}, "faults": [], "silent": []}
        state: dict[str, Any] = json.loads(self._file.read_text())
        return state


def _take_fault(state: dict[str, Any], node_id: str, command: command_pb2.Command) -> dict[str, Any] | None:
    for fault in state["faults"]:
        if fault["times"] > 0 and fault["body"] == command.WhichOneof("body") and fault["node_id"] in ("", node_id):
            fault["times"] -= 1
            found: dict[str, Any] = fault
            return found
    return None


def _digest(command: command_pb2.Command) -> str:
    copy = command_pb2.Command()
    copy.CopyFrom(command)
    copy.ClearField("epoch")
    copy.ClearField("deadline")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def _failed(
    command: command_pb2.Command, code: FailureCode, message: str, *, retryable: bool = False
) -> command_pb2.CommandResult:
    number = failure_pb2.FailureCode.Value(f"FAILURE_CODE_{code}")
    failure = failure_pb2.Failure(code=number, message=message, retryable=retryable)
    return command_pb2.CommandResult(command_id=command.id, failure=failure)


def _member_request(machine: Machine) -> str:
    """A real certificate request; the key is made once per machine."""
    if not machine.key_pem:
        made = ec.generate_private_key(ec.SECP256R1())
        machine.key_pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    key = serialization.load_pem_private_key(machine.key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
