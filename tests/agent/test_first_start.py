"""From the first moment on which mongod listens, nobody gets in without the keyfile's secret."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo.errors
import pytest

from agent import identity
from agent.files import write_private
from agent.mongod import config, replica_set
from agent.mongod.client import MongodClient
from agent.mongod.process import MongodProcess
from agent.mongod.reconfig import Member, Timing
from agent.mongod.settings import MongodSecrets, MongodSettings
from agent.settings import NodePaths
from tests.agent.machine import Machine
from tests.agent.wire import Wire
from tests.waiting import eventually

UNAUTHORIZED = 13


@pytest.fixture
def node(tmp_path: Path, mongodb_dir: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, Wire(), Wire(), 77, mongodb_dir)
    yield machine
    machine.destroy()


@pytest.mark.parametrize("localhost_exception", [False, True])
async def test_a_stranger_on_the_same_machine_cannot_make_the_first_user(
    node: Machine, localhost_exception: bool
) -> None:
    """The control is mongod's own default, which lets whoever comes first from this machine make the first user."""
    paths, settings = node.paths, _settings(node)
    _write_files(node, settings, localhost_exception)
    process = MongodProcess(paths)
    process.spawn(node.mongodb / "bin" / "mongod")
    client = MongodClient(settings, paths.keyfile, paths.cluster_ca)
    try:
        await eventually(client.version, within=20)
        member = Member(0, node.address, 1.0, 1)
        await replica_set.initiate(client, "rs0", member, Timing(), "data", lambda _: None)
        assert await asyncio.to_thread(_make_first_user, node) == localhost_exception
    finally:
        await client.close()


def _settings(node: Machine) -> MongodSettings:
    order = node.certify.start_order(_csr(node), node.ip, node.volume_id, node.mongodb)
    return MongodSettings(
        version="6.0.5",
        directory=str(node.mongodb),
        url="",
        sha256="",
        volume_id=node.volume_id,
        replica_set="rs0",
        role="data",
        bind_ip=node.ip,
        port=order.port,
        cache_gib=0.25,
        oplog_mib=32,
    )


def _csr(node: Machine) -> str:
    if not node.paths.member_key.exists():
        write_private(node.paths.member_key, identity.new_key())
    return identity.signing_request(node.paths.member_key.read_text(), "n")


def _write_files(node: Machine, settings: MongodSettings, localhost_exception: bool) -> None:
    paths: NodePaths = node.paths
    paths.volume(node.volume_id).mkdir(parents=True)
    order = node.certify.start_order(_csr(node), node.ip, node.volume_id, node.mongodb)
    config.write_secrets(paths, MongodSecrets(order.keyfile, order.certificate_pem, order.ca_pem))
    config.write_config(paths, settings)
    wished: dict[str, Any] = config.config(paths, settings, localhost_exception=localhost_exception)
    write_private(paths.mongod_config, json.dumps(wished))


def _make_first_user(node: Machine) -> bool:
    with node.client() as stranger:
        try:
            stranger.admin.command("createUser", "intruder", pwd="let-me-in-please", roles=["root"])
        except pymongo.errors.OperationFailure as failure:
            return failure.code != UNAUTHORIZED
    return True
