"""What a client needs to reach a cluster: addresses, user, password, authority, and how to write it down."""

import json
from collections.abc import Sequence
from urllib.parse import quote_plus

from sqlalchemy.orm import Session
from wap.control.v1 import cluster_pb2 as pb

from controlplane.api.wire_clusters import address_of
from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import FailureCode, Refused
from controlplane.planner.create import ADMIN_USER
from controlplane.store import clusters
from controlplane.store.tables import Cluster, Node
from controlplane.store.vault import ADMIN_PASSWORD, AUTHORITY_CERTIFICATE, Vault, cluster_scope

READY = (ClusterState.AVAILABLE, ClusterState.UPDATING)
CA_FILE = "ca.pem"


def connection(tx: Session, vault: Vault, cluster: Cluster) -> pb.GetConnectionResponse:
    """How to connect; CLUSTER_STATE for a cluster that nobody can connect to now."""
    scope = cluster_scope(cluster.id)
    password, ca_pem = vault.get(tx, scope, ADMIN_PASSWORD), vault.get(tx, scope, AUTHORITY_CERTIFICATE)
    nodes = [node for node in clusters.nodes_of(tx, [cluster.id]) if node.removed_at is None and node.private_ip]
    if cluster.state not in READY or not nodes or password is None or ca_pem is None:
        raise Refused(
            FailureCode.CLUSTER_STATE,
            f"cluster {cluster.name} cannot be connected to while it is {cluster.state}",
            field="cluster_id",
            given=cluster.id,
            allowed=f"a cluster that is {' or '.join(READY)}",
        )
    return _written_down(nodes, password.decode(), ca_pem.decode())


def _written_down(nodes: Sequence[Node], password: str, ca_pem: str) -> pb.GetConnectionResponse:
    place = f"{','.join(address_of(node) for node in nodes)}/?replicaSet={nodes[0].replica_set}&tls=true"
    uri = f"mongodb://{quote_plus(ADMIN_USER)}:{quote_plus(password)}@{place}"
    # mongosh asks for the password: in its command line every user of the machine could read it.
    asking = f"mongodb://{quote_plus(ADMIN_USER)}@{place}"
    text, ca_file = json.dumps(uri), json.dumps(CA_FILE)
    return pb.GetConnectionResponse(
        uri=uri,
        username=ADMIN_USER,
        password=password,
        ca_pem=ca_pem,
        mongosh_command=f'mongosh "{asking}" --tlsCAFile {CA_FILE}',
        python_snippet=f"from pymongo import MongoClient\n\nclient = MongoClient({text}, tlsCAFile={ca_file})\n",
        nodejs_snippet=(
            'import { MongoClient } from "mongodb";\n\n'
            f"const client = new MongoClient({text}, {{ tlsCAFile: {ca_file} }});\n"
        ),
    )
