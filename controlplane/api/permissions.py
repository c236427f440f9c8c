"""The permission table: every RPC has a row, and an RPC without one is denied. Tests hold it total.

A foreign project's things answer NOT_FOUND, with the same words as things that do not exist.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from controlplane.api import alert_scopes
from controlplane.domain.access import Caller, Role
from controlplane.domain.failure import FailureCode, Refused, invalid, not_found
from controlplane.store import clusters, nodes, operations, projects
from controlplane.store.tables import Cluster

# Finds the project that a request is about; "" where it is about all that the caller can see.
Scope = Callable[[Session, Any], str]


@dataclass(frozen=True)
class Rule:
    """What a call needs. `role` None: any authenticated caller. `scope` None: the whole installation.

    `everywhere`: the role is needed in the whole installation where the scope is no project.
    """

    role: Role | None = None
    scope: Scope | None = None
    public: bool = False
    everywhere: bool = False


def _project(tx: Session, request: Any) -> str:
    """By project_id, or by name where a project has one."""
    if request.project_id:
        if projects.get(tx, request.project_id) is None:
            raise not_found("project", request.project_id)
        return str(request.project_id)
    return ""


def _named_project(tx: Session, request: Any) -> str:
    _required("project_id", request.project_id or request.name)
    found = projects.get(tx, request.project_id) if request.project_id else projects.by_name(tx, request.name)
    if found is None:
        raise not_found("project", request.project_id or request.name)
    return found.id


def _required_project(tx: Session, request: Any) -> str:
    _required("project_id", request.project_id)
    return _project(tx, request)


def _required(field: str, value: str) -> None:
    if not value:
        raise invalid(field, "", f"the {field.removesuffix('_id')}'s id")


def _cluster(tx: Session, request: Any) -> str:
    return find_cluster(tx, request).project_id


def find_cluster(tx: Session, request: Any) -> Cluster:
    """By cluster_id, or by project_id and name."""
    if request.cluster_id:
        found = clusters.get(tx, request.cluster_id)
    else:
        _required("cluster_id", getattr(request, "name", ""))
        found = clusters.by_name(tx, request.project_id, request.name)
    if found is None:
        raise not_found("cluster", request.cluster_id or getattr(request, "name", ""))
    return found


def _optional_cluster(tx: Session, request: Any) -> str:
    if request.cluster_id:
        found = clusters.get(tx, request.cluster_id)
        if found is None:
            raise not_found("cluster", request.cluster_id)
        return found.project_id
    return _project(tx, request)


def _operation(tx: Session, request: Any) -> str:
    _required("operation_id", request.operation_id)
    found = operations.get(tx, request.operation_id)
    if found is None:
        raise not_found("operation", request.operation_id)
    return found.project_id


def _node(tx: Session, request: Any) -> str:
    _required("node_id", request.node_id)
    node = nodes.get(tx, request.node_id)
    cluster = clusters.get(tx, node.cluster_id) if node is not None else None
    if cluster is None:
        raise not_found("node", request.node_id)
    return cluster.project_id


def _measured(tx: Session, request: Any) -> str:
    """By the node, or by the cluster that all nodes belong to."""
    if request.node_id and request.cluster_id:
        raise invalid("node_id", request.node_id, "cluster_id or node_id, not both")
    return _node(tx, request) if request.node_id else _cluster(tx, request)


def _filtered(tx: Session, request: Any) -> str:
    """By the filter of a search, whose narrowest part counts."""
    about = request.filter
    return _node(tx, about) if about.node_id else _optional_cluster(tx, about)


_V, _O, _A = Role.VIEWER, Role.OPERATOR, Role.ADMIN
_ANYONE = Rule()
_INSTALLATION_ADMIN = Rule(_A)

_CONTROL: dict[str, Rule] = {
    "AccessService/Login": Rule(public=True),
    "AccessService/Logout": _ANYONE,
    "AccessService/GetCaller": _ANYONE,
    "AccessService/ChangePassword": _ANYONE,
    "AccessService/CreateUser": _INSTALLATION_ADMIN,
    "AccessService/ListUsers": _INSTALLATION_ADMIN,
    "AccessService/SetUserDisabled": _INSTALLATION_ADMIN,
    # Anyone may make tokens with at most the rights they have; the servicer checks each grant.
    "AccessService/CreateToken": _ANYONE,
    "AccessService/ListTokens": _ANYONE,
    "AccessService/RevokeToken": _ANYONE,
    "AccessService/ListAuditEvents": Rule(_A, _project),
    "ProjectService/CreateProject": _INSTALLATION_ADMIN,
    "ProjectService/GetProject": Rule(_V, _named_project),
    "ProjectService/ListProjects": _ANYONE,
    "ProjectService/DeleteProject": Rule(_A, _required_project),
    "ClusterService/CreateCluster": Rule(_O, _required_project),
    "ClusterService/GetCluster": Rule(_V, _cluster),
    "ClusterService/ListClusters": Rule(_V, _project),
    "ClusterService/WatchClusters": Rule(_V, _optional_cluster),
    "ClusterService/GetConnection": Rule(_O, _cluster),
    "ClusterService/DeleteCluster": Rule(_O, _cluster),
    "ClusterService/ListCreateOptions": _ANYONE,
    "OperationService/GetOperation": Rule(_V, _operation),
    "OperationService/ListOperations": Rule(_V, _optional_cluster),
    "OperationService/WatchOperation": Rule(_V, _operation),
    "OperationService/CancelOperation": Rule(_O, _operation),
    "OperationService/RetryOperation": Rule(_O, _operation),
    "OperationService/AbandonOperation": Rule(_O, _operation),
    "NodeService/GetNode": Rule(_V, _node),
    "NodeService/ListNodes": Rule(_V, _optional_cluster),
    "NodeService/BanAgent": Rule(_O, _node),
    "MetricService/ListMetrics": _ANYONE,
    "MetricService/QueryMetrics": Rule(_V, _measured),
    "MetricService/SummariseMetrics": Rule(_V, _optional_cluster),
    "MetricService/StreamMetrics": Rule(_V, _measured),
    "MetricService/ListCurrentOperations": Rule(_V, _node),
    "MetricService/KillOperation": Rule(_O, _node),
    "LogService/SearchLogs": Rule(_V, _filtered),
    "LogService/TailLogs": Rule(_V, _filtered),
    "LogService/ListSlowQueries": Rule(_V, _measured),
    "AlertService/ListAlertRules": Rule(_V, alert_scopes.place),
    "AlertService/CreateAlertRule": Rule(_O, alert_scopes.new_rule, everywhere=True),
    "AlertService/UpdateAlertRule": Rule(_O, alert_scopes.rule, everywhere=True),
    "AlertService/DeleteAlertRule": Rule(_O, alert_scopes.rule, everywhere=True),
    "AlertService/ListAlerts": Rule(_V, alert_scopes.place),
    "AlertService/GetAlert": Rule(_V, alert_scopes.alert),
    "AlertService/WatchAlerts": Rule(_V, alert_scopes.place),
    "AlertService/AcknowledgeAlert": Rule(_O, alert_scopes.alert),
    "AlertService/CreateSilence": Rule(_O, alert_scopes.new_silence, everywhere=True),
    "AlertService/ListSilences": Rule(_V, _project),
    "AlertService/EndSilence": Rule(_O, alert_scopes.silence, everywhere=True),
    "AlertService/CreateAlertChannel": Rule(_A, alert_scopes.new_channel, everywhere=True),
    "AlertService/ListAlertChannels": Rule(_V, _project),
    "AlertService/DeleteAlertChannel": Rule(_A, alert_scopes.channel, everywhere=True),
    "AlertService/TestAlertChannel": Rule(_A, alert_scopes.channel, everywhere=True),
}

RULES: dict[str, Rule] = {
    **{f"/wap.control.v1.{name}": rule for name, rule in _CONTROL.items()},
    # The join token is the credential; the agent port has its own checks.
    "/wap.agent.v1.EnrollmentService/Enroll": Rule(public=True),
    "/grpc.health.v1.Health/Check": Rule(public=True),
    "/grpc.health.v1.Health/Watch": Rule(public=True),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(public=True),
}


def authorise(tx: Session, method: str, caller: Caller, request: Any) -> str:
    """The project that the call is about ("" for none); Refused when the caller may not make it."""
    rule = RULES.get(method)
    if rule is None:
        raise _denied(method, "a call that is in the permission table")
    if rule.role is None:
        return ""
    if rule.scope is None:
        if not caller.may(rule.role, ""):
            raise _denied(method, f"role {rule.role} for the whole installation")
        return ""
    project_id = rule.scope(tx, request)
    if not project_id:  # all that the caller can see; the servicer filters
        if not caller.grants or (rule.role is Role.ADMIN and not caller.may(Role.ADMIN, "")):
            raise _denied(method, f"role {rule.role}")
        if rule.everywhere and not caller.may(rule.role, ""):
            raise _denied(method, f"role {rule.role} for the whole installation")
        return ""
    if not caller.may(Role.VIEWER, project_id):
        raise _foreign(method, request)
    if not caller.may(rule.role, project_id):
        raise _denied(method, f"role {rule.role} in this project")
    return project_id


def _denied(method: str, allowed: str) -> Refused:
    name = method.rpartition("/")[2]
    return Refused(
        FailureCode.PERMISSION_DENIED, f"{name} needs {allowed}", field="authorization", given=name, allowed=allowed
    )


def _foreign(method: str, request: Any) -> Refused:
    """A foreign thing is missing in the same words as one that does not exist."""
    if alerting := alert_scopes.named(request):
        return not_found(*alerting)
    about = getattr(request, "filter", request)
    for kind in ("operation", "node", "cluster"):
        given = getattr(about, f"{kind}_id", "")
        if given:
            return not_found(kind, given)
    if method.endswith("/GetCluster"):
        return not_found("cluster", request.name)
    return not_found("project", about.project_id or getattr(request, "name", ""))
