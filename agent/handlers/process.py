"""The mongod process: its key, its start and its end."""

from wap.agent.v1 import command_pb2
from wap.type.v1 import cluster_pb2

from agent import identity
from agent.failure import FailureCode, NodeFailure, refused
from agent.files import write_private
from agent.mongod.settings import MongodSecrets, MongodSettings, check_secrets, check_settings
from agent.node import Node, Progress

ROLES = {cluster_pb2.REPLICA_SET_ROLE_DATA: "data", cluster_pb2.REPLICA_SET_ROLE_CONFIG: "config"}


async def create_member_key(node: Node, result: command_pb2.CommandResult) -> None:
    """The member's key, made once, and a request for its certificate; the key never leaves the node."""
    path = node.paths.member_key
    if not path.exists():
        write_private(path, identity.new_key())
    result.create_member_key.csr_pem = identity.signing_request(path.read_text(), node.node_id)
    result.detail = "the member's key is on the node"


async def start_mongod(
    node: Node, order: command_pb2.StartMongod, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """mongod runs as ordered and answers."""
    settings = _settings(order)
    check_settings(settings)
    secrets = MongodSecrets(order.keyfile, order.certificate_pem, order.ca_pem)
    check_secrets(secrets, settings, _member_key(node))
    pid, version = await node.mongod.start(settings, secrets, progress)
    result.start_mongod.CopyFrom(command_pb2.StartMongodResult(pid=pid, version=version))
    result.detail = f"mongod {version} runs on {settings.address}"


async def stop_mongod(
    node: Node, order: command_pb2.StopMongod, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """mongod has ended and is not started again."""
    code = await node.mongod.stop(progress, ignore_quorum=order.ignore_quorum)
    result.stop_mongod.exit_code = code
    result.detail = "mongod does not run"


def _settings(order: command_pb2.StartMongod) -> MongodSettings:
    if order.role not in ROLES:
        raise refused("role", order.role, "REPLICA_SET_ROLE_DATA or REPLICA_SET_ROLE_CONFIG")
    distribution = order.distribution
    return MongodSettings(
        version=distribution.version,
        directory=distribution.directory,
        url=distribution.url,
        sha256=distribution.sha256,
        volume_id=order.volume_id,
        replica_set=order.replica_set,
        role=ROLES[order.role],
        bind_ip=order.bind_ip,
        port=order.port,
        cache_gib=order.cache_gib,
        oplog_mib=order.oplog_mib,
    )


def _member_key(node: Node) -> str:
    if not node.paths.member_key.exists():
        raise NodeFailure(
            FailureCode.INVALID_ARGUMENT,
            "this node has no member key yet",
            field="certificate_pem",
            allowed="a certificate for the request that CreateMemberKey returns",
        )
    return node.paths.member_key.read_text()
