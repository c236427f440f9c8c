"""ClusterService of the fake."""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from wap.control.v1 import cluster_pb2 as pb
from wap.control.v1.cluster_pb2 import Cluster
from wap.control.v1.cluster_pb2_grpc import ClusterServiceServicer
from wap.control.v1.operation_pb2 import (
    OPERATION_KIND_CREATE_CLUSTER,
    OPERATION_KIND_DELETE_CLUSTER,
    OPERATION_STATE_FAILED,
)
from wap.control.v1.project_pb2 import Project
from wap.type.v1 import failure_pb2 as f
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.fake.catalog import OPTIONS, settled
from console.fake.engine import Engine
from console.fake.gate import actor
from console.fake.plans import create_plan, delete_plan
from console.fake.refusals import Refused, invalid, not_found
from console.fake.world import World, now

DATABASE_USER = "wap-admin"
DATABASE_PASSWORD = "fake-database-password"


class ClusterService(ClusterServiceServicer):
    """Clusters that are rows."""

    def __init__(self, world: World, engine: Engine) -> None:
        self._world = world
        self._engine = engine

    async def CreateCluster(self, request: pb.CreateClusterRequest, context: Any) -> pb.CreateClusterResponse:
        """The same key and request give the first answer again."""
        project = self._world.project_by(actor(), project_id=request.project_id)
        actor().require(project.id, ACCESS_ROLE_OPERATOR)
        spec = settled(request)
        plan = create_plan(spec)
        repeated = self._repeated(request)
        if repeated is not None:
            repeated.plan.CopyFrom(plan)
            return repeated
        if any(cluster.name == request.name for cluster in self._world.live_clusters(project.id)):
            raise Refused(
                f.FAILURE_CODE_ALREADY_EXISTS,
                "The project has a cluster of this name.",
                field="name",
                given=request.name,
                allowed="a name that is not taken",
            )
        cluster = self._new_cluster(project, request.name, spec, plan.usd_per_month)
        if request.validate_only:
            return pb.CreateClusterResponse(cluster=cluster, plan=plan)
        self._world.clusters[cluster.id] = cluster
        operation = self._engine.open(cluster, OPERATION_KIND_CREATE_CLUSTER, actor().name, plan)
        if request.idempotency_key:
            key = (project.id, request.idempotency_key)
            self._world.answered[key] = (request.SerializeToString(deterministic=True), operation.id)
        after = MessageToDict(spec, preserving_proto_field_name=True)
        self._record("CreateCluster", cluster, after=after)
        return pb.CreateClusterResponse(cluster=cluster, operation=operation, plan=plan)

    async def GetCluster(self, request: pb.GetClusterRequest, context: Any) -> pb.GetClusterResponse:
        """By id, or by project and name among those not deleted."""
        if request.cluster_id:
            return pb.GetClusterResponse(cluster=self._world.cluster_by(actor(), request.cluster_id))
        project = self._world.project_by(actor(), project_id=request.project_id)
        for cluster in self._world.live_clusters(project.id):
            if cluster.name == request.name:
                return pb.GetClusterResponse(cluster=cluster)
        raise not_found("cluster", request.name)

    async def ListClusters(self, request: pb.ListClustersRequest, context: Any) -> pb.ListClustersResponse:
        """By project and name."""
        found = self._visible(request.project_id, "", with_deleted=request.include_deleted)
        page, following = self._world.page(found, request.page_size or 100, request.page_token)
        return pb.ListClustersResponse(clusters=page, next_page_token=following)

    async def WatchClusters(
        self, request: pb.WatchClustersRequest, context: Any
    ) -> AsyncIterator[pb.WatchClustersResponse]:
        """At once, and after every change of an answer."""
        if request.cluster_id:
            self._world.cluster_by(actor(), request.cluster_id)
        if request.project_id:
            self._world.project_by(actor(), project_id=request.project_id)
        last: bytes | None = None
        while True:
            found = self._visible(request.project_id, request.cluster_id, with_deleted=bool(request.cluster_id))
            reply = pb.WatchClustersResponse(clusters=found)
            text = reply.SerializeToString(deterministic=True)
            if text != last:
                last = text
                yield reply
            else:
                await self._world.change()

    async def GetConnection(self, request: pb.GetConnectionRequest, context: Any) -> pb.GetConnectionResponse:
        """Addresses that lead nowhere, in the right form."""
        cluster = self._world.cluster_by(actor(), request.cluster_id)
        actor().require(cluster.project_id, ACCESS_ROLE_OPERATOR)
        if cluster.state not in (pb.CLUSTER_STATE_AVAILABLE, pb.CLUSTER_STATE_UPDATING):
            raise Refused(
                f.FAILURE_CODE_CLUSTER_STATE,
                "The cluster cannot be connected to yet.",
                field="cluster_id",
                given=_word(cluster),
                allowed="available",
            )
        self._record("GetConnection", cluster)
        return _connection(cluster)

    async def DeleteCluster(self, request: pb.DeleteClusterRequest, context: Any) -> pb.DeleteClusterResponse:
        """Needs the name, no protection and no running operation."""
        cluster = self._world.cluster_by(actor(), request.cluster_id)
        actor().require(cluster.project_id, ACCESS_ROLE_OPERATOR)
        self._check_deletable(cluster)
        plan = delete_plan(cluster.spec)
        if request.validate_only:
            return pb.DeleteClusterResponse(plan=plan)
        if request.confirm_name != cluster.name:
            raise Refused(
                f.FAILURE_CODE_NAME_NOT_CONFIRMED,
                "The typed name is not the cluster's name.",
                field="confirm_name",
                given=request.confirm_name,
                allowed=cluster.name,
            )
        cluster.state = pb.CLUSTER_STATE_DELETING
        operation = self._engine.open(cluster, OPERATION_KIND_DELETE_CLUSTER, actor().name, plan)
        self._record("DeleteCluster", cluster)
        return pb.DeleteClusterResponse(operation=operation, plan=plan)

    async def ListCreateOptions(
        self, request: pb.ListCreateOptionsRequest, context: Any
    ) -> pb.ListCreateOptionsResponse:
        """One region."""
        if request.region not in ("", *OPTIONS.regions):
            raise invalid("region", request.region, ", ".join(OPTIONS.regions))
        return OPTIONS

    def _repeated(self, request: pb.CreateClusterRequest) -> pb.CreateClusterResponse | None:
        body, operation_id = self._world.answered.get((request.project_id, request.idempotency_key), (b"", ""))
        if not operation_id or request.validate_only:
            return None
        if body != request.SerializeToString(deterministic=True):
            raise Refused(
                f.FAILURE_CODE_IDEMPOTENCY_CONFLICT,
                "This idempotency key was used for another request.",
                field="idempotency_key",
                given=request.idempotency_key,
                allowed="a new key",
            )
        operation = self._world.operations[operation_id]
        return pb.CreateClusterResponse(cluster=self._world.clusters[operation.cluster_id], operation=operation)

    def _check_deletable(self, cluster: Cluster) -> None:
        holder = self._world.operations.get(cluster.active_operation_id)
        if holder is not None:
            failed = holder.state == OPERATION_STATE_FAILED
            raise Refused(
                f.FAILURE_CODE_CLUSTER_BUSY,
                "A failed operation holds the cluster." if failed else "An operation is running on the cluster.",
                field="cluster_id",
                given=holder.id,
                allowed="retry or abandon that operation first" if failed else "wait for it, or cancel it",
            )
        if cluster.state == pb.CLUSTER_STATE_DELETED:
            raise Refused(f.FAILURE_CODE_CLUSTER_STATE, "The cluster is deleted.", field="cluster_id", given="deleted")
        if cluster.spec.deletion_protection:
            raise Refused(
                f.FAILURE_CODE_DELETION_PROTECTED,
                "The cluster is protected from deletion.",
                field="spec.deletion_protection",
                given="true",
                allowed="false",
            )

    def _visible(self, project_id: str, cluster_id: str, *, with_deleted: bool) -> list[Cluster]:
        found = [
            cluster
            for cluster in self._world.clusters.values()
            if actor().sees(cluster.project_id)
            and project_id in ("", cluster.project_id)
            and cluster_id in ("", cluster.id)
            and (with_deleted or cluster.state != pb.CLUSTER_STATE_DELETED)
        ]
        return sorted(found, key=lambda cluster: (cluster.project_name, cluster.name, cluster.id))

    def _new_cluster(self, project: Project, name: str, spec: Any, usd_per_month: float) -> Cluster:
        return Cluster(
            id=self._world.new_id("cl"),
            project_id=project.id,
            project_name=project.name,
            name=name,
            spec=spec,
            generation=1,
            state=pb.CLUSTER_STATE_CREATING,
            health=pb.CLUSTER_HEALTH_UNKNOWN,
            health_reason="The cluster is being created",
            create_time=now(),
            usd_per_month=usd_per_month,
        )

    def _record(self, action: str, cluster: Cluster, **values: object) -> None:
        self._world.record(actor(), action, f"cluster/{cluster.id}", project_id=cluster.project_id, **values)


def _word(cluster: Cluster) -> str:
    return pb.ClusterState.Name(cluster.state).removeprefix("CLUSTER_STATE_").lower()


def _connection(cluster: Cluster) -> pb.GetConnectionResponse:
    hosts = ",".join(member.address for member in cluster.members)
    options = f"replicaSet={cluster.spec.replica_sets[0].name}&tls=true"
    uri = f"mongodb://{DATABASE_USER}:{DATABASE_PASSWORD}@{hosts}/?{options}"
    return pb.GetConnectionResponse(
        uri=uri,
        username=DATABASE_USER,
        password=DATABASE_PASSWORD,
        ca_pem="-----BEGIN CERTIFICATE-----\nnot a certificate: fake control plane\n-----END CERTIFICATE-----\n",
        mongosh_command=f'mongosh "{uri}" --tlsCAFile ca.pem',
        python_snippet=f'MongoClient("{uri}", tlsCAFile="ca.pem")',
        nodejs_snippet=f'new MongoClient("{uri}", {{ tlsCAFile: "ca.pem" }})',
    )
