"""Create a 3-node replica set and wait until it can be written to: python -m scripts.examples.create_and_wait PROJECT NAME.

Reads where the control plane is, and the token, from `wap login` or from WAP_ENDPOINT, WAP_CA_FILE and WAP_TOKEN.
"""

import sys

from wap.control.v1.cluster_pb2 import GetConnectionRequest
from wap.control.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation

from console.client import Client, WapError
from console.client.config import load


def main(project: str, name: str) -> int:
    """Exit code 0 when the cluster is ready, 1 when it is not."""
    config = load()
    with Client(config.endpoint, ca_pem=config.ca_bytes(), token=config.token) as client:
        operation = client.create_cluster(project, name, members=3, disk_gib=20)
        operation = client.wait(operation.id, on_change=show, timeout=1800)
        if operation.state != OPERATION_STATE_SUCCEEDED:
            print(f"{operation.id} did not succeed: {operation.failure.message or operation.summary}", file=sys.stderr)
            return 1
        cluster = client.cluster(project, name)
        connection = client.clusters.GetConnection(GetConnectionRequest(cluster_id=cluster.id))
        print(connection.uri)  # holds the password: for a program that reads it, not for a log
        return 0


def show(operation: Operation) -> None:
    """One line per change."""
    print(f"{operation.steps_done}/{operation.steps_total} {operation.summary}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:3]))
    except WapError as error:
        sys.exit(f"{error} (request {error.request_id})")
