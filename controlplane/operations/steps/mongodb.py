"""MongoDB on the machines: mongods with keyfile and TLS, one replica set, its first user."""

import base64
import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy.orm import Session
from wap.agent.v1 import command_pb2
from wap.type.v1 import cluster_pb2

from controlplane.domain.cluster import MONGODB_PORT
from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.operations.execution import Execution, StepRun
from controlplane.operations.orders import order
from controlplane.planner.create import ADMIN_USER
from controlplane.store.tables import Node
from controlplane.store.vault import ADMIN_PASSWORD, cluster_scope

# While a set is made its members look at each other five times a second; the default of 2 s costs seconds per change.
CREATION_HEARTBEAT_MILLIS = 200
KEYFILE_BYTES = 384  # 512 base64 characters; MongoDB takes 6 to 1024
SHORT_SECONDS, START_SECONDS, HEALTHY_SECONDS = 60.0, 300.0, 300.0


async def mongod(run: StepRun) -> str:
    """The slot's volume mounted, its key made on the node, its certificate signed, its mongod answering."""
    execution = run.execution
    node = await execution.node(run.step.subject)
    prepare = command_pb2.Command(prepare_volume=command_pb2.PrepareVolume(volume_id=node.volume_id))
    await order(run, node.id, prepare, within=START_SECONDS)
    key = command_pb2.Command(create_member_key=command_pb2.CreateMemberKey())
    csr = (await order(run, node.id, key, within=SHORT_SECONDS)).create_member_key.csr_pem
    start = await _start_command(execution, node, csr)
    result = await order(run, node.id, command_pb2.Command(start_mongod=start), within=START_SECONDS)
    return f"mongod {result.start_mongod.version} runs on {node.private_ip}:{MONGODB_PORT}"


async def _start_command(execution: Execution, node: Node, csr_pem: str) -> command_pb2.StartMongod:
    tools = execution.tools
    distribution = tools.installation.distributions[execution.spec.mongodb_version]

    def secrets_of(tx: Session) -> tuple[str, str, str]:
        scope, now = cluster_scope(execution.cluster_id), tools.clock.now()
        tools.vault.put(tx, scope, "keyfile", base64.b64encode(secrets.token_bytes(KEYFILE_BYTES)), now)
        authority = tools.authority.cluster_authority(tx, execution.cluster_id)
        name = f"certificate/{node.id}/{hashlib.sha256(csr_pem.encode()).hexdigest()[:16]}"
        if tools.vault.get(tx, scope, name) is None:  # a step that runs twice sends the same certificate
            certificate = authority.issue_member(
                csr_pem, ip=node.private_ip, names=[f"{node.name}.{execution.cluster_name}"]
            )
            tools.vault.put(tx, scope, name, certificate.encode(), now)
        keyfile, certificate_pem = tools.vault.get(tx, scope, "keyfile"), tools.vault.get(tx, scope, name)
        assert keyfile is not None
        assert certificate_pem is not None
        return keyfile.decode(), certificate_pem.decode(), authority.ca_pem

    keyfile, certificate_pem, ca_pem = await execution.write(secrets_of)
    return command_pb2.StartMongod(
        distribution=command_pb2.Distribution(
            version=distribution.version,
            directory=distribution.directory,
            url=distribution.url,
            sha256=distribution.sha256,
        ),
        volume_id=node.volume_id,
        replica_set=node.replica_set,
        role=cluster_pb2.REPLICA_SET_ROLE_DATA,
        bind_ip=node.private_ip,
        port=MONGODB_PORT,
        keyfile=keyfile,
        certificate_pem=certificate_pem,
        ca_pem=ca_pem,
        cache_gib=tools.installation.cache_gib,
        oplog_mib=tools.installation.oplog_mib,
    )


async def initiate(run: StepRun) -> str:
    """The set exists with its first member as primary."""
    first = (await _members_of(run))[0]
    body = command_pb2.InitiateReplicaSet(
        replica_set=first.replica_set,
        member=_member(first),
        heartbeat_interval_millis=CREATION_HEARTBEAT_MILLIS,
    )
    await order(run, first.id, command_pb2.Command(initiate_replica_set=body), within=SHORT_SECONDS)
    return f"{first.name} is primary of {first.replica_set}"


async def members(run: StepRun) -> str:
    """All members stand in the set's configuration."""
    version = await _configure(run, CREATION_HEARTBEAT_MILLIS)
    return f"configuration version {version}"


async def settle(run: StepRun) -> str:
    """The set runs with MongoDB's default timing."""
    version = await _configure(run, 0)
    return f"configuration version {version} with MongoDB's default timing"


async def _configure(run: StepRun, heartbeat_millis: int) -> int:
    nodes = await _members_of(run)
    primary = _primary(nodes)
    body = command_pb2.ConfigureReplicaSet(
        replica_set=primary.replica_set,
        members=[_member(node) for node in nodes],
        heartbeat_interval_millis=heartbeat_millis,
    )
    result = await order(run, primary.id, command_pb2.Command(configure_replica_set=body), within=SHORT_SECONDS)
    return result.configure_replica_set.config_version


async def healthy(run: StepRun) -> str:
    """Every voter is healthy and the primary has accepted a majority write."""
    nodes = await _members_of(run)
    primary = _primary(nodes)
    body = command_pb2.AwaitReplicaSet(replica_set=primary.replica_set, healthy_voters=len(nodes))
    result = await order(run, primary.id, command_pb2.Command(await_replica_set=body), within=HEALTHY_SECONDS)
    return f"{len(nodes)} healthy voters, majority write accepted by {result.await_replica_set.primary}"


async def user(run: StepRun) -> str:
    """The database administrator exists; the password is made once and stays in the vault."""
    execution = run.execution

    def password(tx: Session) -> str:
        scope = cluster_scope(execution.cluster_id)
        run.tools.vault.put(tx, scope, ADMIN_PASSWORD, secrets.token_urlsafe(24).encode(), run.tools.clock.now())
        value = run.tools.vault.get(tx, scope, ADMIN_PASSWORD)
        assert value is not None
        return value.decode()

    body = command_pb2.EnsureUser(
        username=ADMIN_USER,
        password=await execution.write(password),
        roles=[command_pb2.DatabaseRole(role="root", database="admin")],
    )
    primary = _primary(await _members_of(run))
    await order(run, primary.id, command_pb2.Command(ensure_user=body), within=SHORT_SECONDS)
    return f"user {ADMIN_USER} with role root"


async def _members_of(run: StepRun) -> Sequence[Node]:
    nodes = [node for node in await run.execution.nodes() if node.replica_set == run.step.subject]
    if not nodes:
        raise WapFailure(FailureCode.INTERNAL, f"replica set {run.step.subject} has no members")
    return nodes


def _primary(nodes: Sequence[Node]) -> Node:
    """The member that last said it was primary; before anyone did, the first, which initiates the set."""
    return next((node for node in nodes if (node.report or {}).get("member_state") == "PRIMARY"), nodes[0])


def _member(node: Node) -> command_pb2.ReplicaSetMember:
    return command_pb2.ReplicaSetMember(
        id=node.ordinal, host=f"{node.private_ip}:{MONGODB_PORT}", priority=1.0, votes=1
    )
