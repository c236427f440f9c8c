"""Small parts of the agent alone: journal, epoch, files, clock, jitter, vocabulary, log of mongod, distribution."""

import hashlib
import http.server
import io
import json
import logging
import random
import ssl
import stat
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from wap.agent.v1 import command_pb2
from wap.type.v1 import failure_pb2

from agent import identity as identities
from agent.channel import FIRST_SECONDS, MAX_SECONDS, full_jitter
from agent.clock import ServerClock
from agent.failure import FailureCode, NodeFailure
from agent.files import write_private
from agent.identity import Identity
from agent.journal import Epoch, Journal, digest_of
from agent.logs import VALUES, JsonLines
from agent.mongod import log as mongod_log
from agent.mongod.distribution import ensure_distribution
from agent.mongod.settings import MongodSettings
from agent.renewal import seconds_until_due
from tests.agent.wire import HOST, Wire


async def test_the_journal_remembers_across_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.db"
    journal = Journal(path)
    await journal.started("a", b"digest")
    await journal.started("a", b"another")  # saying so again changes nothing
    await journal.started("b", b"d")
    await journal.done("b", b"result")
    after_crash = Journal(path)  # the first was never closed
    first, second = await after_crash.find("a"), await after_crash.find("b")
    assert first is not None
    assert second is not None
    assert (first.digest, first.result) == (b"digest", None)
    assert (second.digest, second.result) == (b"d", b"result")
    assert await after_crash.find("c") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_digest_is_of_the_body_alone() -> None:
    one = command_pb2.Command(id="a", epoch=1, stop_mongod=command_pb2.StopMongod())
    same = command_pb2.Command(id="b", epoch=2, stop_mongod=command_pb2.StopMongod())
    same.deadline.GetCurrentTime()
    other = command_pb2.Command(id="a", epoch=1, stop_mongod=command_pb2.StopMongod(ignore_quorum=True))
    assert digest_of(one) == digest_of(same) != digest_of(other)


def test_the_epoch_only_rises(tmp_path: Path) -> None:
    epoch = Epoch(tmp_path / "epoch")
    epoch.raise_to(7)
    epoch.raise_to(3)
    assert Epoch(tmp_path / "epoch").highest == epoch.highest == 7


def test_a_private_file_is_replaced_at_once_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_private(path, "one")
    with pytest.raises(TypeError):
        write_private(path, 5)  # type: ignore[arg-type]
    assert path.read_text() == "one"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_identity_shows_no_key(tmp_path: Path) -> None:
    identity = Identity(identities.new_key())
    assert "PRIVATE" not in repr(identity)
    identities.save(tmp_path / "identity.json", identity)
    assert identities.load(tmp_path / "identity.json") == identity
    assert identities.signing_request(identity.key_pem, "n") == identities.signing_request(identity.key_pem, "n")


def test_a_renewal_is_due_at_half_life_give_or_take_a_tenth() -> None:
    end = Wire(timedelta(hours=24))
    key = identities.new_key()
    leaf = end.authority.issue_agent("n0", identities.signing_request(key, "n0"))
    obtained = datetime.now(UTC).timestamp()
    identity = Identity(key, leaf.pem, end.authority.ca_pem, "", obtained)
    due = [seconds_until_due(identity) / 3600 for _ in range(200)]
    assert 10.79 < min(due) < 11.2
    assert 12.8 < max(due) < 13.21


def test_jitter_is_full_and_bounded() -> None:
    random.seed(7)
    for attempt in (0, 3, 8, 10**6):
        limit = min(MAX_SECONDS, FIRST_SECONDS * 2 ** min(attempt, 10))
        waits = [full_jitter(attempt) for _ in range(300)]
        assert 0 <= min(waits) < limit * 0.1
        assert limit * 0.9 < max(waits) <= limit


def test_a_clock_that_is_off_is_a_problem() -> None:
    assert not ServerClock().problem
    clock = ServerClock()
    clock.heard(datetime.now(UTC) - timedelta(seconds=90))
    assert clock.problem == "the node's clock is 90 s ahead of the control plane's"
    assert abs((clock.now() - datetime.now(UTC)).total_seconds() + 90) < 1


def test_every_failure_code_of_the_agent_is_on_the_wire() -> None:
    names = set(failure_pb2.FailureCode.keys())
    assert {f"FAILURE_CODE_{code}" for code in FailureCode} <= names


def test_a_log_line_is_json_with_its_values() -> None:
    record = logging.LogRecord("agent.x", logging.INFO, "", 0, "it happened", (), None)
    setattr(record, VALUES, {"pid": 7, "path": Path("/a")})
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["level"], line["logger"]) == ("it happened", "info", "agent.x")
    assert (line["pid"], line["path"]) == (7, "/a")


def test_the_last_error_of_mongod_is_found_and_shows_no_key(tmp_path: Path) -> None:
    log, output = tmp_path / "mongod.log", tmp_path / "mongod.out"
    key = "A" * 64
    lines = [
        {"s": "E", "id": 1, "msg": "of an older run"},
        {"s": "E", "id": 2, "msg": "bad key", "attr": {"error": {"errmsg": f"key {key} is bad"}}},
        {"s": "F", "id": 23089, "msg": "Fatal assertion"},
        {"s": "I", "id": mongod_log.SHUTTING_DOWN_ID, "msg": "Shutting down", "attr": {"exitCode": 14}},
    ]
    texts = [json.dumps(line) for line in lines]
    log.write_text("\n".join(texts) + "\n")
    since = len(texts[0]) + 1
    assert mongod_log.last_error(log, output, since) == "bad key: key *** is bad"
    assert mongod_log.exit_code(log, since) == 14
    assert not mongod_log.out_of_space(log, since)
    log.write_text("")
    output.write_text('{"s":"I","msg":"starting"}\nError parsing option "oplogSizeMB"\n')
    assert mongod_log.last_error(log, output, 0) == 'Error parsing option "oplogSizeMB"'


MONGOD = b"#!/bin/sh\necho 'db version v6.0.5'\n"


def tarball(entries: dict[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        if link:
            info = tarfile.TarInfo("m/bin")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVES = {
    "/good.tgz": tarball({"mongodb-6.0.5/bin/mongod": MONGOD}),
    "/escapes.tgz": tarball({"../../escaped": b"x", "m/bin/mongod": MONGOD}),
    "/absolute.tgz": tarball({"/tmp/escaped": b"x", "m/bin/mongod": MONGOD}),
    "/link.tgz": tarball({"m/bin/mongod": MONGOD}, link="/tmp"),
    "/empty.tgz": tarball({"README": b"nothing here"}),
    "/broken.tgz": b"this is no archive",
}


class Shop(http.server.BaseHTTPRequestHandler):
    """Serves the archives, and redirects /moved to plain http."""

    def do_GET(self) -> None:
        body = ARCHIVES.get(self.path)
        if body is None:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/good.tgz")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    """An https server: its address, and what trusts it."""
    authority = Wire().authority
    key, chain = authority.issue_listener([HOST])
    pair = tmp_path / "shop.pem"
    pair.write_bytes(key + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    with http.server.ThreadingHTTPServer((HOST, 0), Shop) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://{HOST}:{server.server_port}", ssl.create_default_context(cadata=authority.ca_pem)
        server.shutdown()
        thread.join()


def settings_for(url: str, sha256: str, version: str = "6.0.5") -> MongodSettings:
    return MongodSettings(version, "", url, sha256, "vol-00000000", "rs0", "data", "127.0.0.1", 27017, 0, 0)


async def test_a_distribution_is_fetched_once_and_checked(shop: tuple[str, ssl.SSLContext], tmp_path: Path) -> None:
    address, trust = shop
    fetched, waits = tmp_path / "distributions", list[str]()
    digest = hashlib.sha256(ARCHIVES["/good.tgz"]).hexdigest()
    binary = await ensure_distribution(settings_for(f"{address}/good.tgz", digest), fetched, waits.append, trust)
    assert binary == fetched / "6.0.5" / "bin" / "mongod"
    again = await ensure_distribution(
        settings_for("https://127.0.0.1:1/gone.tgz", digest), fetched, waits.append, trust
    )
    assert again == binary
    assert waits == ["MongoDB 6.0.5 to be fetched"]
    assert [path.name for path in fetched.iterdir()] == ["6.0.5"]


@pytest.mark.parametrize(
    ("path", "version", "complaint"),
    [
        ("/good.tgz", "6.0.6", "is of version 6.0.5"),
        ("/escapes.tgz", "6.0.5", "unpacked safely"),
        ("/absolute.tgz", "6.0.5", "unpacked safely"),
        ("/link.tgz", "6.0.5", "unpacked safely"),
        ("/empty.tgz", "6.0.5", "no bin/mongod"),
        ("/broken.tgz", "6.0.5", "unpacked safely"),
        ("/moved", "6.0.5", "could not be fetched"),
    ],
)
async def test_a_bad_distribution_is_refused_and_leaves_nothing(
    shop: tuple[str, ssl.SSLContext], tmp_path: Path, path: str, version: str, complaint: str
) -> None:
    address, trust = shop
    digest = hashlib.sha256(ARCHIVES.get(path, b"")).hexdigest()
    with pytest.raises(NodeFailure) as failure:
        await ensure_distribution(settings_for(address + path, digest, version), tmp_path / "d", lambda _: None, trust)
    assert failure.value.code is FailureCode.DISTRIBUTION_INVALID
    assert complaint in failure.value.message
    assert not (tmp_path / "escaped").exists()
    if complaint != "is of version 6.0.5":
        assert not list((tmp_path / "d").glob("*"))


async def test_an_archive_with_another_checksum_is_not_unpacked(
    shop: tuple[str, ssl.SSLContext], tmp_path: Path
) -> None:
    address, trust = shop
    with pytest.raises(NodeFailure) as failure:
        await ensure_distribution(settings_for(f"{address}/good.tgz", "0" * 64), tmp_path / "d", lambda _: None, trust)
    assert "SHA-256" in failure.value.message
    assert not list((tmp_path / "d").glob("*"))
    with pytest.raises(NodeFailure) as failure:  # the control: a stranger's certificate is not trusted
        await ensure_distribution(settings_for(f"{address}/good.tgz", "0" * 64), tmp_path / "d", lambda _: None)
    assert "could not be fetched" in failure.value.message
