"""The blocking connection to mongod for those who read figures in threads of their own."""

from typing import Any

import pymongo

from agent.mongod.client import connection
from agent.mongod.supervisor import Supervisor
from agent.settings import NodePaths

Client = pymongo.MongoClient[dict[str, Any]]


class MongodReader:
    """At most one connection at a time, made anew when mongod or what it takes to connect is another. For one thread."""

    def __init__(self, paths: NodePaths, mongod: Supervisor) -> None:
        self._paths, self._mongod = paths, mongod
        self._client: Client | None = None
        self._made_for: object = None

    def client(self) -> Client | None:
        """A client of the running mongod; None while none runs."""
        goal, pid = self._mongod.goal, self._mongod.pid
        if goal is None or not pid:
            self.close()
            return None
        files = (self._paths.keyfile, self._paths.cluster_ca)
        made_for = (pid, goal.settings, [file.stat().st_mtime_ns for file in files])
        if self._client is None or made_for != self._made_for:
            self.close()
            options = connection(goal.settings, *files)
            self._client = pymongo.MongoClient(**options, maxPoolSize=1, connect=False)
            self._made_for = made_for
        return self._client

    def close(self) -> None:
        """End the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
