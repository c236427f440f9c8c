"""What strangers, other sites, ended sessions and hostile names cannot do. Each protection has its control: the same check
with the protection off shows that the check would notice."""

import ast
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from nicegui import core
from nicegui.nicegui import _on_event
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Message
from wap.control.v1.access_pb2 import AuditEvent
from wap.type.v1.failure_pb2 import FAILURE_CODE_INTERNAL, Failure

import console as package
from console.client import AsyncClient
from console.fake import FakeControl
from console.parts.markup import Html, h, show
from console.sessions import Session, Sessions
from console.shield import Shield
from tests.console.conftest import ORIGIN, WITHIN, Console, Person, running_console
from tests.console.test_pages import make_cluster
from tests.waiting import eventually

PACKAGE = Path(package.__file__).parent
SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not {"cli", "client", "fake"} & set(path.relative_to(PACKAGE).parts[:1])
]
MARKUP = PACKAGE / "parts" / "markup.py"
PAYLOAD = "<img src=x onerror=window.__broken=1><script>window.__broken=1</script>"
ESCAPED = "&lt;img src=x onerror"


class Forgetful(Sessions):
    """Sessions without the protection: an ended session counts as alive."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Session] = {}

    def alive(self, key: str) -> Session | None:
        found = super().alive(key)
        if found is not None:
            self.seen[key] = found
        return self.seen.get(key)


# Handlers ----------------------------------------------------------------------------------------


def raw_handlers(source: str) -> list[int]:
    """Lines with an event handler that does not stand behind View.authorised."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        handlers = [
            word.value for word in node.keywords if (word.arg or "").startswith("on_") and word.arg != "on_error"
        ]
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if name == "on" or (name.startswith("on_") and name not in ("on_delete", "on_choice")):
            handlers += node.args[1:2] if name == "on" else node.args[:1]
        if name == "timer" and isinstance(owner, ast.Name) and owner.id == "ui":
            handlers.append(node.args[1])
        found += [node.lineno for handler in handlers if not _is_authorised(handler)]
    return found


def _is_authorised(handler: ast.expr) -> bool:
    return (
        isinstance(handler, ast.Call) and isinstance(handler.func, ast.Attribute) and handler.func.attr == "authorised"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_event_handler_is_authorised(path: Path) -> None:
    assert raw_handlers(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "ui.button('x', on_click=delete)",
        "ui.button('x').on_click(delete)",
        "element.on('click', lambda: delete())",
        "ui.input(on_change=lambda e: save())",
        "entry.on_value_change(save)",
        "ui.timer(1.0, refresh)",
    ],
)
def test_a_raw_event_handler_would_be_noticed(source: str) -> None:
    assert raw_handlers(source) == [1]


def raw_html(source: str) -> list[int]:
    """Lines that hand HTML or script to the browser past the escaping, or call text of others HTML."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        bypass = name in ("html", "markdown", "run_javascript", "add_body_html", "set_content", "interactive_image")
        head = name == "add_head_html" and not (isinstance(node.args[0], ast.Name) and node.args[0].id == "HEAD")
        wrapped = name == "Html" and not all(isinstance(arg, ast.Constant) for arg in node.args)
        if bypass or head or wrapped:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_html_comes_from_one_module(path: Path) -> None:
    lines = raw_html(path.read_text())
    # The icons are put together from literals of the design module itself.
    assert lines == [] or path == MARKUP or (path.name == "design.py" and len(lines) == 1)


@pytest.mark.parametrize(
    "source",
    ["ui.html(name)", "Html(f'<b>{name}</b>')", "ui.run_javascript(code)", "ui.add_head_html(x)", "ui.markdown(x)"],
)
def test_raw_html_would_be_noticed(source: str) -> None:
    assert raw_html(source) == [1]


def test_values_become_text() -> None:
    assert h("p", PAYLOAD, title='"><i>') == (
        '<p title="&quot;&gt;&lt;i&gt;">' + PAYLOAD.replace("<", "&lt;").replace(">", "&gt;") + "</p>"
    )
    with pytest.raises(TypeError):
        show(PAYLOAD)  # type: ignore[arg-type]
    assert h("p", Html("<b>ours</b>")) == "<p><b>ours</b></p>"


# Ended and foreign sessions ----------------------------------------------------------------------


@pytest.mark.parametrize("protected", [True, False])
async def test_a_page_of_an_ended_session_cannot_act(fake: FakeControl, protected: bool) -> None:
    sessions = Sessions() if protected else Forgetful()
    async with running_console(fake, sessions) as console:
        person = await console.person()
        await person.open("/access")
        await person.sees("No tokens")
        session = sessions.owner_of(person.page.id)
        assert session is not None
        await person.user.http_client.post("/logout")  # in another tab
        if not protected:
            session.pages[person.page.id] = lambda: None
        person.user.find(marker="create-token").click()
        if protected:
            await person.is_sent_to("/login?next=/access")
            assert not person.asks("token-dialog")
        else:
            await eventually(lambda: person.asks("token-dialog"), within=WITHIN)


async def test_ending_a_session_sends_its_open_pages_to_the_login(console: Console) -> None:
    person = await console.person()
    await person.open("/clusters")
    await person.sees("No clusters yet")
    await person.user.http_client.post("/logout")
    await person.is_sent_to("/login?next=/clusters")


async def test_a_user_who_is_locked_out_cannot_act_any_more(console: Console) -> None:
    cluster = await make_cluster(console)
    person = await console.person()
    await person.open(f"/clusters/{cluster.id}")
    await person.sees("Healthy")
    console.fake.world.session_users.clear()  # what the control plane does to the sessions of such a user
    await person.click("delete")
    await eventually(lambda: console.sessions.owner_of(person.page.id) is None, within=WITHIN)
    assert not person.asks("delete-dialog")


@pytest.mark.parametrize("protected", [True, False])
async def test_a_message_for_the_page_of_another_socket_is_dropped(console: Console, protected: bool) -> None:
    """Whoever learns the id of a page cannot act in it."""
    victim = await console.person()
    await victim.open("/access")
    await victim.sees("No tokens")
    button = next(iter(victim.user.find(marker="create-token").elements))
    listener = next(one for one in button._event_listeners.values() if one.type == "click")
    message = {"client_id": victim.page.id, "id": button.id, "listener_id": listener.id, "args": []}
    handler = core.sio.handlers["/"]["event"] if protected else _on_event
    outcome = handler("a-socket-of-somebody-else", message)
    if outcome is not None:
        await outcome
    if protected:
        assert not victim.asks("token-dialog")
    else:
        await eventually(lambda: victim.asks("token-dialog"), within=WITHIN)


async def test_a_socket_of_another_session_is_refused(console: Console) -> None:
    victim, other = await console.person(), await console.person()
    await victim.open("/clusters")
    environ = {
        "QUERY_STRING": f"client_id={victim.page.id}&implicit_handshake=true",
        "HTTP_COOKIE": f"wap_console={other.user.http_client.cookies['wap_console']}",
    }
    assert await core.sio.handlers["/"]["connect"]("a-socket", environ) is False
    assert await core.sio.handlers["/"]["connect"]("a-socket", environ | {"HTTP_COOKIE": ""}) is False


# Other sites -------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://console.test.evil.example", None])
@pytest.mark.parametrize("checks_origin", [True, False])
async def test_a_post_from_another_site_is_refused(console: Console, origin: str | None, checks_origin: bool) -> None:
    app = console.app if checks_origin else GZipMiddleware(Shield(_inside(console.app), checks_origin=False))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as browser:
        headers = {"origin": origin} if origin else {}
        answer = await browser.post("/login", data={"username": "admin", "password": "password"}, headers=headers)
    assert answer.status_code == (403 if checks_origin else 303)


@pytest.mark.parametrize(
    ("origin", "accepted"), [(ORIGIN, True), ("https://evil.example", False), (None, False), ("null", False)]
)
async def test_a_socket_from_another_site_is_refused(origin: str | None, accepted: bool) -> None:
    reached = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"console.test")] + ([(b"origin", origin.encode())] if origin else [])
    scope = {"type": "websocket", "path": "/_nicegui_ws/socket.io/", "headers": headers, "extensions": {}}
    await Shield(inside)(scope, _no_message, send)
    assert bool(reached) is accepted
    assert [message["type"] for message in sent] == ([] if accepted else ["websocket.close"])


async def test_another_site_cannot_read_a_socket_that_runs_over_requests(console: Console) -> None:
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    answer = await console.browser(origin="https://evil.example").get(path)
    assert answer.status_code == 403


async def test_pages_carry_the_headers_that_confine_them(console: Console) -> None:
    person = await console.person()
    for path in ("/login", "/clusters", "/access", "/no-such-page"):
        answer = await person.user.http_client.get(path, follow_redirects=True)
        policy = answer.headers["content-security-policy"]
        nonces = set(re.findall(r'<script nonce="([^"]+)"', answer.text))
        assert len(nonces) == 1
        assert f"'nonce-{nonces.pop()}'" in policy
        assert "<script>" not in answer.text
        assert "'unsafe-inline'" not in policy.split("style-src")[0]
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"


async def test_a_nonce_is_used_once(console: Console) -> None:
    browser = console.browser()
    policies = {(await browser.get("/login")).headers["content-security-policy"] for _ in range(3)}
    assert len(policies) == 3


def _inside(app: Any) -> Any:
    return app.app._app


async def _no_message() -> Message:
    raise AssertionError("nothing is to be received")


# Hostile names and logs --------------------------------------------------------------------------


async def poisoned(console: Console) -> tuple[str, str]:
    """A cluster and an operation in which every text is an attack; their ids."""
    cluster = await make_cluster(console)
    world = console.fake.world
    row = world.clusters[cluster.id]
    row.name = row.project_name = row.health_reason = row.spec.mongodb_version = row.spec.region = PAYLOAD
    for member in row.members:
        member.name = member.address = member.zone = member.problem = PAYLOAD
    for node in world.nodes.values():
        node.name = node.host_name = node.cluster_name = node.zone = node.mongod_state = node.agent_version = PAYLOAD
    operation = next(iter(world.operations.values()))
    operation.cluster_name = operation.summary = operation.actor = PAYLOAD
    operation.failure.CopyFrom(Failure(code=FAILURE_CODE_INTERNAL, message=PAYLOAD, given=PAYLOAD, field=PAYLOAD))
    for step in operation.steps:
        step.detail = step.plan.title = step.plan.reason = step.plan.stage_title = PAYLOAD
    world.audit.append(
        AuditEvent(
            id="ev-x", time=Timestamp(seconds=1), actor=PAYLOAD, action=PAYLOAD, resource=PAYLOAD, after_json=PAYLOAD
        )
    )
    world.touch()
    return cluster.id, operation.id


async def test_hostile_names_are_text_on_every_page(console: Console) -> None:
    cluster_id, operation_id = await poisoned(console)
    person = await console.person()
    paths = ("/clusters", f"/clusters/{cluster_id}", "/operations", f"/operations/{operation_id}", "/nodes", "/audit")
    for path in paths:
        await person.open(path)
        await person.sees(ESCAPED)
        contents = [element.content for element in _html_elements(person)]
        assert contents
        assert not [content for content in contents if "<img" in content or "<script" in content]


async def test_hostile_names_do_not_get_the_nonce(console: Console) -> None:
    cluster_id, _ = await poisoned(console)
    person = await console.person()
    text = (await person.user.http_client.get(f"/clusters/{cluster_id}")).text
    assert "<script nonce" in text
    assert "<script>window.__broken" not in text
    assert "__broken=1</script>" not in text


def _html_elements(person: Person) -> list[Any]:
    return [
        element
        for element in person.page.elements.values()
        if hasattr(element, "content") and element.content is not None and isinstance(element.content, str)
    ]


async def test_ids_of_pages_and_sessions_are_never_logged(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    person = await console.person()
    await person.open("/clusters")
    page_id = person.page.id
    for name in ("nicegui", "uvicorn.error", "engineio.server"):
        logging.getLogger(name).warning("client %s is odd", page_id)
    await person.user.http_client.post("/logout")
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "client <page> is odd" in text
    assert page_id not in text
    assert str(person.user.http_client.cookies.get("wap_console", "no cookie")) not in text


async def test_a_dump_of_the_sessions_shows_no_cookie(console: Console) -> None:
    person = await console.person()
    cookie = person.user.http_client.cookies["wap_console"]
    assert cookie not in repr(console.sessions._live)


async def test_the_console_uses_each_users_own_token(console: Console) -> None:
    first, second = await console.person(), await console.person()
    for person in (first, second):
        await person.open("/clusters")
    tokens = {session.api.token for session in console.sessions._live.values() if isinstance(session.api, AsyncClient)}
    assert len(tokens) == 2
