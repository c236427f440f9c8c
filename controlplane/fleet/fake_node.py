"""What a command does to a machine of the simulated fleet: the states a real agent and its mongod would go through."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, assert_never

from wap.agent.v1 import command_pb2

from controlplane.domain.failure import FailureCode

DISK_BYTES = 20 * 2**30
FIRST_PID = 4000


class Refusal(Exception):
    """The agent would refuse this, or its mongod would."""

    def __init__(self, code: FailureCode, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code, self.retryable = code, retryable


@dataclass
class Machine:
    """One node: what its agent has made of it."""

    epoch: int = 0
    volume_id: str = ""
    key_pem: str = ""
    running: bool = False
    address: str = ""
    version: str = ""
    replica_set: str = ""
    # Hosts in the set's configuration, by the primary alone; empty before replSetInitiate.
    members: list[str] = field(default_factory=list)
    config_version: int = 0
    users: dict[str, list[str]] = field(default_factory=dict)
    # How often it was told to sample; 0: as usual.
    sampling_seconds: int = 0
    # Ids of what clients let its mongod do.
    operations: list[int] = field(default_factory=lambda: [101, 102])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Machine":
        """The machine that `to_json` gave."""
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def carry_out(
    machines: Mapping[str, Machine],
    node_id: str,
    command: command_pb2.Command,
    request_of: Callable[[Machine], str],
) -> command_pb2.CommandResult:
    """Change the machines as the command says; Refusal where a real agent would not do it."""
    machine = machines[node_id]
    result = command_pb2.CommandResult(command_id=command.id)
    body = command.WhichOneof("body")
    match body:
        case "prepare_volume":
            _prepare(machine, command.prepare_volume, result.prepare_volume)
        case "create_member_key":
            result.create_member_key.csr_pem = request_of(machine)
        case "start_mongod":
            _start(machine, command.start_mongod, result.start_mongod)
        case "stop_mongod":
            machine.running = False
            result.stop_mongod.exit_code = 0
        case "initiate_replica_set":
            _initiate(machine, command.initiate_replica_set)
        case "configure_replica_set":
            _configure(machine, command.configure_replica_set, result.configure_replica_set)
        case "await_replica_set":
            _await(machines, machine, command.await_replica_set, result.await_replica_set)
        case "ensure_user":
            _primary(machine, machine.replica_set)
            roles = [f"{role.database}.{role.role}" for role in command.ensure_user.roles]
            machine.users[command.ensure_user.username] = roles
        case "set_sampling":
            machine.sampling_seconds = command.set_sampling.interval_seconds
        case "list_current_operations":
            _list_operations(machine, result.list_current_operations)
        case "kill_operation":
            _kill(machine, command.kill_operation)
        case None:
            raise Refusal(FailureCode.UNSUPPORTED_COMMAND, "this agent does not know the command")
        case _:
            assert_never(body)
    return result


def _prepare(machine: Machine, order: command_pb2.PrepareVolume, result: command_pb2.PrepareVolumeResult) -> None:
    if not order.volume_id:
        raise Refusal(FailureCode.INVALID_ARGUMENT, "volume_id is empty")
    result.formatted = machine.volume_id != order.volume_id
    machine.volume_id = order.volume_id
    result.mount_path = f"/var/lib/wap/volumes/{order.volume_id}"
    result.total_bytes = result.free_bytes = DISK_BYTES


def _start(machine: Machine, order: command_pb2.StartMongod, result: command_pb2.StartMongodResult) -> None:
    if machine.volume_id != order.volume_id:
        raise Refusal(FailureCode.VOLUME_UNUSABLE, f"volume {order.volume_id} is not mounted")
    if not machine.key_pem or not order.certificate_pem or not order.keyfile:
        raise Refusal(FailureCode.INVALID_ARGUMENT, "key, certificate and keyfile are needed")
    machine.running = True
    machine.address = f"{order.bind_ip}:{order.port}"
    machine.version, machine.replica_set = order.distribution.version, order.replica_set
    result.pid, result.version = FIRST_PID, order.distribution.version


def _initiate(machine: Machine, order: command_pb2.InitiateReplicaSet) -> None:
    if not machine.running:
        raise Refusal(FailureCode.MONGOD_UNREACHABLE, "mongod does not run", retryable=True)
    if machine.replica_set != order.replica_set:
        raise Refusal(FailureCode.MONGOD_COMMAND_FAILED, f"mongod belongs to {machine.replica_set}")
    if not machine.members:
        machine.members, machine.config_version = [order.member.host], 1


def _configure(
    machine: Machine,
    order: command_pb2.ConfigureReplicaSet,
    result: command_pb2.ConfigureReplicaSetResult,
) -> None:
    _primary(machine, order.replica_set)
    machine.members = [member.host for member in order.members]
    machine.config_version += 1
    result.config_version = machine.config_version


def _await(
    machines: Mapping[str, Machine],
    machine: Machine,
    order: command_pb2.AwaitReplicaSet,
    result: command_pb2.AwaitReplicaSetResult,
) -> None:
    _primary(machine, order.replica_set)
    healthy = {one.address for one in machines.values() if one.running and one.replica_set == order.replica_set}
    if len(healthy & set(machine.members)) < order.healthy_voters:
        raise Refusal(FailureCode.NOT_HEALTHY_IN_TIME, f"{len(healthy)} of {order.healthy_voters} voters are healthy")
    result.primary = machine.address


def _primary(machine: Machine, replica_set: str) -> None:
    if not machine.running:
        raise Refusal(FailureCode.MONGOD_UNREACHABLE, "mongod does not run", retryable=True)
    if not machine.members or machine.replica_set != replica_set:
        raise Refusal(FailureCode.MONGOD_COMMAND_FAILED, "this node is not the primary")


def _list_operations(machine: Machine, result: command_pb2.ListCurrentOperationsResult) -> None:
    for number in machine.operations:
        result.operations.add(
            id=number,
            operation="find",
            namespace="shop.orders",
            running_seconds=12.5,
            killable=True,
            client="10.77.0.9",
        )


def _kill(machine: Machine, order: command_pb2.KillOperation) -> None:
    if order.id not in machine.operations:
        raise Refusal(FailureCode.NOT_FOUND, f"no operation {order.id} runs any more")
    machine.operations.remove(order.id)
