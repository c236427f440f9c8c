"""Client tokens: the same request is one thing, however often it is sent. Plain moto, the control, makes one each time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.parsers import ResponseParserError
from moto.server import ThreadedMotoServer

from scripts.sandbox import Fault
from tests.sandbox.conftest import IMAGE, SLEEP, ZONE, Lab, ec2_at, lab_in, refused

WISH = {"ImageId": IMAGE, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1, "ClientToken": "token-1"}
DISK = {"AvailabilityZone": ZONE, "Size": 1, "VolumeType": "gp3", "ClientToken": "token-1"}


@pytest.fixture
def plain_moto() -> Iterator[Any]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ec2 = ec2_at(f"http://{host}:{port}")
    yield ec2
    ids = [item["InstanceId"] for group in ec2.describe_instances()["Reservations"] for item in group["Instances"]]
    ec2.terminate_instances(InstanceIds=ids)
    server.stop()


@pytest.mark.parametrize(("through", "made"), [("lab", 1), ("plain_moto", 2)])
def test_the_same_token_twice(request: pytest.FixtureRequest, through: str, made: int) -> None:
    fixture = request.getfixturevalue(through)
    ec2 = fixture.ec2 if isinstance(fixture, Lab) else fixture
    ids = {ec2.run_instances(**WISH)["Instances"][0]["InstanceId"] for _ in range(2)}
    disks = {ec2.create_volume(**DISK)["VolumeId"] for _ in range(2)}
    assert len(ids) == len(disks) == made


def test_the_same_token_from_eight_callers_at_once(lab: Lab) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {
            reply["Instances"][0]["InstanceId"] for reply in pool.map(lambda _: lab.ec2.run_instances(**WISH), range(8))
        }
    assert list(ids) == lab.sandbox.inventory()["instances"]


def test_a_token_stands_for_one_request(lab: Lab) -> None:
    lab.ec2.run_instances(**WISH)
    lab.ec2.create_volume(**DISK)
    assert refused(lab.ec2.run_instances, **WISH | {"InstanceType": "m6i.xlarge"}) == "IdempotentParameterMismatch"
    assert refused(lab.ec2.create_volume, **DISK | {"Size": 2}) == "IdempotentParameterMismatch"
    assert len(lab.sandbox.inventory()["instances"]) == 1


@pytest.mark.parametrize("token", ["x" * 65, "tökén"])
def test_a_token_has_at_most_64_ascii_characters(lab: Lab, token: str) -> None:
    assert refused(lab.ec2.run_instances, **WISH | {"ClientToken": token}) == "InvalidParameterValue"
    assert refused(lab.ec2.create_volume, **DISK | {"ClientToken": token}) == "InvalidParameterValue"
    lab.ec2.run_instances(**WISH | {"ClientToken": "x" * 64})


def test_a_token_is_used_up_when_its_instance_is_terminated(lab: Lab) -> None:
    instance = lab.launch(SLEEP, ClientToken="token-1")
    lab.ec2.terminate_instances(InstanceIds=[instance])
    with pytest.raises(lab.ec2.exceptions.ClientError, match="IdempotentInstanceTerminated"):
        lab.launch(SLEEP, ClientToken="token-1")
    assert lab.launch(SLEEP, ClientToken="token-2") != instance


def test_instances_are_found_by_their_token(lab: Lab) -> None:
    def found(*tokens: str) -> set[str]:
        reply = lab.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": list(tokens)}])
        return {item["InstanceId"] for group in reply["Reservations"] for item in group["Instances"]}

    one, two = lab.launch(ClientToken="one"), lab.launch(ClientToken="two")
    assert found("one") == {one}
    assert found("one", "two") == {one, two}
    assert found("three") == set()


def test_plain_moto_fails_on_that_filter(plain_moto: Any) -> None:
    plain_moto.run_instances(**WISH)
    filters = [{"Name": "client-token", "Values": ["token-1"]}]
    with pytest.raises(ResponseParserError, match="500 Internal Server Error"):
        plain_moto.describe_instances(Filters=filters)


def test_boto3s_own_repeat_after_a_lost_reply_makes_no_second_one(lab: Lab) -> None:
    lab.sandbox.faults.add(Fault("RunInstances", "lost_reply"))
    patient = ec2_at(lab.sandbox.endpoint, attempts=3)
    instance = patient.run_instances(ImageId=IMAGE, InstanceType="m6i.large", MinCount=1, MaxCount=1)["Instances"][0]
    assert lab.sandbox.inventory()["instances"] == [instance["InstanceId"]]
    assert [call["outcome"] for call in lab.sandbox.calls] == ["InternalError", "ok"]


def test_tokens_outlive_a_restart(state: Path) -> None:
    before = lab_in(state)
    instance = before.launch(SLEEP, ClientToken="token-1")
    before.sandbox.stop()
    after = lab_in(state)
    try:
        assert after.launch(SLEEP, ClientToken="token-1") == instance
    finally:
        after.sandbox.stop()
