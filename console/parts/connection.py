"""How to connect: strings for the shell and two drivers, the password hidden until it is asked for, the CA to save.

The rule this module guards: nothing secret is fetched before somebody asks, since the control plane audits each answer, and
the password reaches the browser only on "Show password".
"""

from wap.control.v1.cluster_pb2 import (
    CLUSTER_STATE_AVAILABLE,
    CLUSTER_STATE_UPDATING,
    Cluster,
    GetConnectionRequest,
    GetConnectionResponse,
)
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_OPERATOR

from console.cli.cluster_view import masked
from console.parts.controls import button, copyable
from console.parts.markup import Html, box, change, h, joined, show
from console.view import View

READY = (CLUSTER_STATE_AVAILABLE, CLUSTER_STATE_UPDATING)


class ConnectionPanel:
    """The panel "Connect" of a cluster page."""

    def __init__(self, view: View, cluster: Cluster) -> None:
        self._view = view
        self._cluster = cluster
        self._connection: GetConnectionResponse | None = None
        self._open = False
        with box("panel", "section", aria_label="Connect"):
            with box("panel-head"):
                show(h("h2", "Connect"))
                with box("buttons"):
                    self._ca = button(view, "Download CA", self._save_ca, icon="download", kind="small", mark="ca")
                    self._eye = button(
                        view, "Show password", self._turn, icon="eye", kind="small", mark="show-password"
                    )
                    self._hide = button(
                        view, "Hide password", self._turn, icon="eye", kind="small", mark="hide-password"
                    )
            with box("panel-body"):
                self._text = show(Html(""))
                self._ask = button(view, "Show connection strings", self._load, icon="link", mark="connect")
        self.update(cluster)

    def update(self, cluster: Cluster) -> None:
        """Follow the cluster: one that is not ready cannot be connected to."""
        self._cluster = cluster
        self._paint()

    def _paint(self) -> None:
        may_see = self._view.session.role_in(self._cluster.project_id) >= ACCESS_ROLE_OPERATOR
        ready = self._cluster.state in READY
        if not ready:
            self._connection = None
        known = self._connection
        self._ask.set_visibility(ready and may_see and known is None)
        self._ca.set_visibility(known is not None)
        self._eye.set_visibility(known is not None and not self._open)
        self._hide.set_visibility(known is not None and self._open)
        change(self._text, _snippets(known if self._open else masked(known)) if known else _why(ready, may_see))

    async def _load(self) -> None:
        request = GetConnectionRequest(cluster_id=self._cluster.id)
        self._connection = await self._view.api.clusters.GetConnection(request)
        self._paint()

    def _turn(self) -> None:
        self._open = not self._open
        self._paint()

    def _save_ca(self) -> None:
        if self._connection is not None:
            name = f"{self._cluster.name}-ca.pem"
            self._view.download(self._connection.ca_pem.encode(), name, "application/x-pem-file")


def _why(ready: bool, may_see: bool) -> Html:
    if not may_see:
        text = "Your role in this project does not include the database's password. Ask for the operator role."
    elif not ready:
        text = "Connection strings appear here when the cluster is available."
    else:
        text = "Connection strings for mongosh, Python and Node.js. They hold a password, so showing them is audited."
    return h("p", text, class_="muted", style="margin-bottom:12px")


def _snippets(connection: GetConnectionResponse) -> Html:
    every = (
        ("Connection string", "uri", connection.uri),
        ("mongosh", "mongosh", connection.mongosh_command),
        ("Python (pymongo)", "python", connection.python_snippet),
        ("Node.js", "nodejs", connection.nodejs_snippet),
    )
    note = h("p", "Save the CA file beside your program: it proves that the servers are yours.", class_="small muted")
    return h(
        "div", joined(_snippet(label, f"snippet-{key}", text) for label, key, text in every), note, class_="snippets"
    )


def _snippet(label: str, html_id: str, text: str) -> Html:
    head = h("div", h("span", label), copyable(label, html_id), class_="snippet-head")
    return h("div", head, h("pre", h("code", text, id=html_id)), class_="snippet")
