"""The agents' port lets nobody through its handshake but holders of a certificate that is good now, for a client, of ours.

On the wire all of these look UNAVAILABLE to the peer, so each test also shows that nothing reached the sessions.
"""

import asyncio
import ssl
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select
from wap.agent.v1 import stream_pb2

from controlplane.domain.clock import FakeClock, SystemClock
from controlplane.fleet.authority import URI, Authority
from controlplane.fleet.certificates import Authority509, issue, new_authority
from controlplane.fleet.listeners import ListenerCertificate
from controlplane.store.database import Database
from controlplane.store.tables import Secret
from controlplane.store.vault import Vault
from tests.fleet.driver import FRESH, HOST, INSTALL, Agent, ControlPlane, Ended, control_plane

DAY = timedelta(days=1)


def forged(agent: Agent, case: str) -> bytes:
    """A certificate for the agent's key and name, with one thing wrong with it. "" is the control: nothing is."""
    plane = agent.plane
    now, pair = plane.clock.now(), plane.authority.pair
    if case == "of another authority with our authority's name":
        pair = new_authority(f"WAP {INSTALL}", now)
    start = {"expired": now - 2 * DAY, "not yet valid": now + DAY}.get(case, now)
    key = serialization.load_pem_private_key(agent.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = issue(
        pair,
        key.public_key(),
        names=[x509.UniformResourceIdentifier(URI.format(install_id=INSTALL, node_id=agent.node_id))],
        subject=[(x509.NameOID.COMMON_NAME, agent.node_id)],
        server=case == "for a server",
        client=case != "for a server",
        now=start,
        life=DAY,
    )
    return leaf.pem.encode()


CASES = ["of another authority with our authority's name", "expired", "not yet valid", "for a server"]


@pytest.mark.parametrize("case", ["", *CASES])
async def test_a_certificate_that_is_not_good_is_refused_at_the_handshake(plane: ControlPlane, case: str) -> None:
    agent = await plane.add_agent()
    agent.certificate_pem = forged(agent, case).decode()
    answer = await agent.attempt()
    assert isinstance(answer, Ended)
    if case:
        assert (answer.status, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "")
        assert await plane.audit("agent.refused") == []
    else:  # through the handshake, and refused behind it: its serial was never given out
        assert (answer.status, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CERTIFICATE_NOT_ACTIVE")


async def test_without_a_client_certificate_nobody_gets_in(plane: ControlPlane) -> None:
    credentials = grpc.ssl_channel_credentials(plane.authority.ca_pem.encode())
    channel: Any = grpc.aio.secure_channel(f"{HOST}:{plane.agent_port}", credentials, options=FRESH)
    async with channel:
        call = channel.unary_unary(
            "/wap.agent.v1.AgentService/RenewCertificate",
            request_serializer=stream_pb2.RenewCertificateRequest.SerializeToString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(stream_pb2.RenewCertificateRequest(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_agent_does_not_talk_to_a_control_plane_of_another_authority(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    stranger = new_authority(f"WAP {INSTALL}", plane.clock.now())
    credentials = grpc.ssl_channel_credentials(stranger.certificate_pem, agent.key_pem, agent.certificate_pem.encode())
    async with grpc.aio.secure_channel(f"{HOST}:{plane.agent_port}", credentials, options=FRESH) as channel:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.channel_ready(), 1)


@pytest.mark.parametrize("uri", ["spiffe://wap/other/node/{}", "https://example.org/{}"])
async def test_a_certificate_of_ours_that_is_no_agents_is_refused_and_audited(plane: ControlPlane, uri: str) -> None:
    agent = await plane.add_agent()
    key = serialization.load_pem_private_key(agent.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = issue(
        plane.authority.pair,
        key.public_key(),
        names=[x509.UniformResourceIdentifier(uri.format(agent.node_id))],
        subject=[(x509.NameOID.COMMON_NAME, "somebody")],
        server=False,
        client=True,
        now=plane.clock.now(),
        life=DAY,
    )
    agent.certificate_pem = leaf.pem
    answer = await agent.attempt()
    assert isinstance(answer, Ended)
    assert (answer.status, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    (event,) = await plane.audit("agent.refused")
    assert (event.actor, event.outcome) == ("agent:somebody", "PERMISSION_DENIED")
    assert (event.after or {})["given"] == uri.format(agent.node_id)


async def test_the_authority_is_sealed_at_rest_and_the_same_after_a_restart(database: Database) -> None:
    vault = Vault(bytes(32))
    async with control_plane(database, vault=vault) as plane:
        first, agent = plane.authority.pair, await plane.add_agent()
    assert first.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    rows = await database.read(lambda tx: list(tx.scalars(select(Secret).where(Secret.scope == "installation"))))
    assert {row.name for row in rows} == {"authority-key", "authority-certificate"}
    assert not any(b"BEGIN" in row.ciphertext for row in rows)
    async with control_plane(database, vault=vault) as again:
        assert again.authority.pair == first
        assert isinstance(await agent.attempt(again), stream_pb2.Welcome)


async def test_control_planes_that_start_at_once_share_one_authority(database: Database) -> None:
    vault, clock = Vault(bytes(32)), SystemClock()
    found: list[Authority509] = [
        authority.pair
        for authority in await asyncio.gather(*(Authority.load(database, vault, clock, INSTALL, 24) for _ in range(8)))
    ]
    assert len(set(found)) == 1


async def served(plane: ControlPlane) -> str:
    """The certificate that the API port shows, by its serial."""
    _, writer = await asyncio.open_connection(HOST, plane.api_port, ssl=_unverified())
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return f"{x509.load_der_x509_certificate(shown).serial_number:x}"


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.parametrize("hours", [1, 25])
async def test_the_ports_certificate_is_renewed_at_half_life_and_streams_stay(sqlite: Database, hours: int) -> None:
    clock = FakeClock(SystemClock().now())
    async with control_plane(sqlite) as plane:
        authority = plane.authority
        await plane.down()
        await plane.up(ListenerCertificate(authority, [HOST], clock, timedelta(hours=48)))
        agent = await plane.add_agent()
        async with agent.session() as line:
            before = await served(plane)
            clock.advance(hours * 3600)
            assert (await served(plane) == before) is (hours < 24)
            await line.beat(problem="still here")
            assert isinstance(await (await plane.add_agent()).attempt(), stream_pb2.Welcome)
