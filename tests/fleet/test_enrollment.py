"""Joining: a token works once, for one node, for ten minutes, and nobody outside learns why another did not."""

import asyncio
from collections import Counter
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy.orm import Session

from controlplane.domain.clock import FakeClock, SystemClock
from controlplane.fleet.certificates import Leaf
from controlplane.store import nodes
from controlplane.store.database import Database
from controlplane.store.nodes import digest
from controlplane.store.tables import Node
from tests.fleet.driver import Agent, ControlPlane, Ended, control_plane, signing_request

TOKEN = "wapjoin_0123456789abcdef"
USES = 100


async def test_of_a_hundred_uses_at_once_one_succeeds(database: Database) -> None:
    async with control_plane(database) as plane:
        node_id = await plane.add_node(token=TOKEN)
        requests = [Agent(plane, node_id).request for _ in range(USES)]
        answers = await asyncio.gather(*(plane.enroll(node_id, TOKEN, request) for request in requests))
        refused = {answer for answer in answers if isinstance(answer, Ended)}
        assert sum(isinstance(answer, Leaf) for answer in answers) == 1
        assert {(end.status, end.reason) for end in refused} == {(grpc.StatusCode.PERMISSION_DENIED, "JOIN_REFUSED")}
        assert len({end.text for end in refused}) == 1
        events = await plane.audit("agent.join_refused")
        assert Counter((event.after or {})["reason"] for event in events) == {"the token was used before": USES - 1}


async def test_looking_first_and_spending_afterwards_would_let_several_in(database: Database) -> None:
    """The control of the test above: the same race with the check and the change apart."""
    async with control_plane(database) as plane:
        node_id = await plane.add_node(token=TOKEN)
        meeting = asyncio.Barrier(USES)

        async def naive() -> bool:
            good = await database.read(lambda tx: tx.get_one(Node, node_id).join_token_hash == digest(TOKEN))
            await meeting.wait()
            if good:
                await database.write(lambda tx: setattr(tx.get_one(Node, node_id), "join_token_hash", ""))
            return good

        assert sum(await asyncio.gather(*(naive() for _ in range(USES)))) > 1


async def test_every_bad_token_gets_the_same_answer_and_the_audit_the_reason(sqlite: Database) -> None:
    clock = FakeClock(SystemClock().now())
    async with control_plane(sqlite, clock=clock) as plane:
        expired = await plane.add_node(token="expired")
        clock.advance(nodes.JOIN_LIFE.total_seconds() + 1)
        used = await plane.add_node(token="used")
        assert isinstance(await plane.enroll(used, "used", Agent(plane, used).request), Leaf)
        banned = await plane.add_node(token="banned")
        await sqlite.write(lambda tx: nodes.ban(tx, banned, clock.now()))
        waiting = await plane.add_node(token=TOKEN)
        cases = {
            (expired, "expired"): "the token has expired",
            (used, "used"): "the token was used before",
            (banned, "banned"): "the node is banned or removed",
            (waiting, "no such token"): "the token is not known",
            (waiting, ""): "the token is not known",
            (waiting, "expired"): "the token is another node's",
            ("nd-none", TOKEN): "no such node",
            ("", TOKEN): "no node id",
            ("nd-\0", TOKEN): "no node id",
            ("x" * 300, TOKEN): "no node id",
        }
        answers = [await plane.enroll(node_id, token, Agent(plane, "x").request) for node_id, token in cases]
        assert {(end.status, end.reason, end.text) for end in answers if isinstance(end, Ended)} == {
            (grpc.StatusCode.PERMISSION_DENIED, "JOIN_REFUSED", "the join token is not valid for this node")
        }
        assert len([end for end in answers if isinstance(end, Ended)]) == len(cases)
        events = await plane.audit("agent.join_refused")
        assert [(event.after or {})["reason"] for event in events] == list(cases.values())
        assert isinstance(await plane.enroll(waiting, TOKEN, Agent(plane, waiting).request), Leaf)


async def test_a_token_is_kept_as_a_hash_only(plane: ControlPlane) -> None:
    node_id = await plane.add_node(token=TOKEN)
    assert isinstance(await plane.enroll(node_id, TOKEN, Agent(plane, node_id).request), Leaf)
    await plane.enroll(node_id, TOKEN, Agent(plane, node_id).request)

    def everything(tx: Session) -> str:
        connection = tx.connection().connection.driver_connection
        assert connection is not None
        return "\n".join(connection.iterdump())

    dump = await plane.database.read(everything)
    assert node_id in dump
    assert TOKEN not in dump


async def test_an_agent_that_never_got_the_answer_may_ask_again_with_the_same_key(plane: ControlPlane) -> None:
    node_id = await plane.add_node(token=TOKEN)
    agent = Agent(plane, node_id)
    lost, second = [await plane.enroll(node_id, TOKEN, agent.request) for _ in range(2)]
    assert isinstance(lost, Leaf)
    assert isinstance(second, Leaf)
    agent.certificate_pem = second.pem
    async with agent.session():
        pass
    agent.certificate_pem = lost.pem
    refused = await agent.attempt()
    assert isinstance(refused, Ended)
    assert refused.reason == "CERTIFICATE_NOT_ACTIVE"
    thief = await plane.enroll(node_id, TOKEN, Agent(plane, node_id).request)
    assert isinstance(thief, Ended)


async def test_a_step_that_runs_again_gives_no_second_use_and_lifts_no_ban(plane: ControlPlane) -> None:
    node_id = await plane.add_node(token=TOKEN)
    await plane.enroll(node_id, TOKEN, Agent(plane, node_id).request)
    expect = plane.clock.now()
    await plane.database.write(lambda tx: nodes.expect_join(tx, node_id, TOKEN, expect))
    assert isinstance(await plane.enroll(node_id, TOKEN, Agent(plane, node_id).request), Ended)
    other = await plane.add_node(token="another")
    await plane.database.write(lambda tx: nodes.ban(tx, other, expect))
    await plane.database.write(lambda tx: nodes.expect_join(tx, other, "another", expect))
    assert isinstance(await plane.enroll(other, "another", Agent(plane, other).request), Ended)


async def test_a_retired_node_may_join_anew_on_its_next_machine(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    now = plane.clock.now()
    await plane.database.write(lambda tx: nodes.ban(tx, agent.node_id, now))
    await plane.database.write(lambda tx: nodes.retire(tx, agent.node_id, now))
    assert isinstance(await agent.attempt(), Ended)
    await plane.database.write(lambda tx: nodes.expect_join(tx, agent.node_id, TOKEN, now))
    assert isinstance(await plane.enroll(agent.node_id, TOKEN, Agent(plane, agent.node_id).request), Leaf)


BAD_REQUESTS = {
    "RSA of 1024 bits": ("RSA, 1024 bits", "a P-256 key"),
    "RSA of 2048 bits": ("RSA, 2048 bits", "a P-256 key"),
    "another curve": ("secp384r1", "a P-256 key"),
    "asks to be an authority": ("CA:true", "a request for a leaf certificate"),
    "a megabyte": ("1048576 bytes", "at most 65536 bytes"),
    "garbage": ("hello", "a PEM certificate request"),
    "empty": ("", "a PEM certificate request"),
    "not signed with its key": ("a bad signature", "a request signed with its own key"),
}


def bad_request(case: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    match case:
        case "RSA of 1024 bits":
            return signing_request(rsa.generate_private_key(65537, 1024))
        case "RSA of 2048 bits":
            return signing_request(rsa.generate_private_key(65537, 2048))
        case "another curve":
            return signing_request(ec.generate_private_key(ec.SECP384R1()))
        case "asks to be an authority":
            return signing_request(key, x509.BasicConstraints(ca=True, path_length=None))
        case "a megabyte":
            return "x" * 2**20
        case "garbage":
            return "hello"
        case "not signed with its key":
            good = signing_request(key).splitlines()
            last = good[-2]
            return "\n".join(
                [*good[:-2], last[:-8] + ("AAAA" if last[-8:-4] != "AAAA" else "BBBB") + last[-4:], good[-1]]
            )
        case _:
            return ""


@pytest.mark.parametrize("case", BAD_REQUESTS)
async def test_a_bad_certificate_request_is_named_and_costs_no_token(plane: ControlPlane, case: str) -> None:
    node_id = await plane.add_node(token=TOKEN)
    answer = await plane.enroll(node_id, TOKEN, bad_request(case))
    assert isinstance(answer, Ended)
    assert (answer.status, answer.reason, answer.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "csr_pem",
    )
    assert (answer.given, answer.allowed) == BAD_REQUESTS[case]
    assert isinstance(await plane.enroll(node_id, TOKEN, Agent(plane, node_id).request), Leaf)


async def test_names_in_a_request_are_ignored_and_set_by_the_authority(plane: ControlPlane) -> None:
    node_id = await plane.add_node(token=TOKEN)
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [x509.DNSName("evil"), x509.UniformResourceIdentifier("spiffe://wap/test/node/nd-other")]
    )
    leaf = await plane.enroll(node_id, TOKEN, signing_request(key, names, name="nd-other"), host_name="h\0" * 400)
    assert isinstance(leaf, Leaf)
    certificate = x509.load_pem_x509_certificate(leaf.pem.encode())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in found] == [f"spiffe://wap/test/node/{node_id}"]
    assert certificate.subject.rfc4514_string() == f"CN={node_id}"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    life = certificate.not_valid_after_utc - plane.clock.now()
    assert timedelta(hours=23) < life <= timedelta(hours=24)


async def test_an_address_that_guesses_is_slowed_down(plane: ControlPlane) -> None:
    async def attempt() -> str:
        answer = await plane.enroll("nd-none", "guess", Agent(plane, "x").request)
        assert isinstance(answer, Ended)
        return answer.reason

    reasons = Counter(await asyncio.gather(*(attempt() for _ in range(260))))
    assert reasons["TOO_MANY_ATTEMPTS"] > 0
    assert reasons["JOIN_REFUSED"] >= 200
