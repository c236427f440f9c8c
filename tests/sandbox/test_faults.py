"""Faults: what a test asks to go wrong goes wrong, so often and only there. Each test also shows the call without it."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from scripts.sandbox import Fault
from tests.sandbox.conftest import IMAGE, OTHER_ZONE, ZONE, Lab, ec2_at, refused
from tests.waiting import wait_until


def http(lab: Lab, method: str, path: str, value: object = None) -> Any:
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(lab.sandbox.endpoint + path, body, method=method)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def wish(zone: str = ZONE, instance_type: str = "m6i.large") -> dict[str, Any]:
    where = {"Placement": {"AvailabilityZone": zone}}
    return {"ImageId": IMAGE, "InstanceType": instance_type, "MinCount": 1, "MaxCount": 1} | where


def test_throttled_so_often_and_then_no_more(lab: Lab) -> None:
    http(lab, "POST", "/sandbox/faults", {"action": "DescribeVpcs", "count": 2})
    assert [refused(lab.ec2.describe_vpcs) for _ in range(2)] == ["RequestLimitExceeded"] * 2
    lab.ec2.describe_vpcs()
    assert http(lab, "GET", "/sandbox/faults")[0]["count"] == 0


def test_boto3_gets_through_throttling_by_itself(lab: Lab) -> None:
    lab.sandbox.faults.add(Fault("DescribeVpcs", count=2))
    ec2_at(lab.sandbox.endpoint, attempts=4).describe_vpcs()
    assert [call["outcome"] for call in lab.sandbox.calls] == ["RequestLimitExceeded"] * 2 + ["ok"]


def test_any_error_on_any_call_and_only_every_third(lab: Lab) -> None:
    lab.sandbox.faults.add(Fault("*", code="InternalError", status=500, count=None, every=3))
    outcomes = []
    for _ in range(6):
        try:
            lab.ec2.describe_vpcs()
            outcomes.append("ok")
        except lab.ec2.exceptions.ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
    assert outcomes == ["ok", "ok", "InternalError"] * 2
    http(lab, "DELETE", "/sandbox/faults")
    for _ in range(6):
        lab.ec2.describe_vpcs()


def test_a_lost_reply_was_carried_out(lab: Lab) -> None:
    lab.sandbox.faults.add(Fault("CreateVpc", "lost_reply"))
    assert refused(lab.ec2.create_vpc, CidrBlock="127.79.0.0/24") == "InternalError"
    assert len(lab.sandbox.inventory()["vpcs"]) == 1


def test_a_failed_call_was_not_carried_out(lab: Lab) -> None:
    lab.sandbox.faults.add(Fault("CreateVpc", code="InternalError", status=500))
    assert refused(lab.ec2.create_vpc, CidrBlock="127.79.0.0/24") == "InternalError"
    assert lab.sandbox.inventory()["vpcs"] == []


def test_no_capacity_in_a_zone(lab: Lab) -> None:
    http(lab, "POST", "/sandbox/faults", {"kind": "capacity", "zone": ZONE, "count": None})
    assert refused(lab.ec2.run_instances, **wish(ZONE)) == "InsufficientInstanceCapacity"
    lab.ec2.run_instances(**wish(OTHER_ZONE))
    assert len(lab.sandbox.inventory()["instances"]) == 1


def test_no_capacity_of_a_type_also_not_to_start_a_stopped_one(lab: Lab) -> None:
    large = lab.launch()
    lab.stop(large)
    lab.sandbox.faults.add(Fault(kind="capacity", instance_type="m6i.large", count=None))
    assert refused(lab.ec2.run_instances, **wish(instance_type="m6i.large")) == "InsufficientInstanceCapacity"
    assert refused(lab.ec2.start_instances, InstanceIds=[large]) == "InsufficientInstanceCapacity"
    assert lab.state(large) == "stopped"
    lab.ec2.run_instances(**wish(instance_type="r6i.large"))
    lab.sandbox.faults.clear()
    lab.ec2.start_instances(InstanceIds=[large])
    assert lab.state(large) == "running"


def test_what_a_token_stands_for_is_told_even_without_capacity(lab: Lab) -> None:
    first = lab.ec2.run_instances(**wish(), ClientToken="t")["Instances"][0]["InstanceId"]
    lab.sandbox.faults.add(Fault(kind="capacity", count=None))
    assert lab.ec2.run_instances(**wish(), ClientToken="t")["Instances"][0]["InstanceId"] == first


def test_new_things_are_shown_late_by_id_and_in_lists(lab: Lab) -> None:
    ec2 = lab.ec2
    shown = lab.launch()
    for action in ("RunInstances", "CreateVolume", "CreateVpc"):
        lab.sandbox.faults.add(Fault(action, "delay", seconds=5.0))
    late, disk = lab.launch(), lab.volume()
    vpc = ec2.create_vpc(CidrBlock="127.79.0.0/24")["Vpc"]["VpcId"]
    assert refused(ec2.describe_instances, InstanceIds=[late]) == "InvalidInstanceID.NotFound"
    assert refused(ec2.describe_volumes, VolumeIds=[disk]) == "InvalidVolume.NotFound"
    assert refused(ec2.describe_vpcs, VpcIds=[vpc]) == "InvalidVpcID.NotFound"

    def listed() -> set[str]:
        reply = ec2.describe_instances()
        return {item["InstanceId"] for group in reply["Reservations"] for item in group["Instances"]}

    assert listed() == {shown}
    assert disk not in {item["VolumeId"] for item in ec2.describe_volumes()["Volumes"]}
    assert vpc not in {item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"]}
    wait_until(lambda: listed() == {shown, late}, within=30)
    wait_until(lambda: vpc in {item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"]}, within=30)
    assert ec2.describe_volumes(VolumeIds=[disk])["Volumes"]
    assert lab.volume() in {item["VolumeId"] for item in ec2.describe_volumes()["Volumes"]}  # the fault is used up


def test_a_slow_call_is_late_and_done(lab: Lab) -> None:
    lab.sandbox.faults.add(Fault("DescribeVpcs", "slow", seconds=0.5))
    took = []
    for _ in range(2):
        began = time.monotonic()
        lab.ec2.describe_vpcs()
        took.append(time.monotonic() - began)
    assert took[0] >= 0.5 > took[1]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"kind": "meteor"}, "kind must be one of"),
        ({"acton": "RunInstances"}, "unknown fields: acton"),
        ({"count": "two"}, "count is of the wrong type"),
        ({"every": 0}, "every must be at least 1"),
        ({"status": 200}, "status from 400"),
        (["RunInstances"], "a fault is an object"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(lab: Lab, fault: object, says: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        http(lab, "POST", "/sandbox/faults", fault)
    assert error.value.code == 400
    assert says in json.load(error.value)["error"]
    assert http(lab, "GET", "/sandbox/faults") == []


def test_the_call_log_tells_what_was_asked_and_what_came_of_it(lab: Lab) -> None:
    instance = lab.launch("#!/bin/bash\n# a secret: hunter2-canary\nexec sleep 600\n")
    refused(lab.ec2.reboot_instances, InstanceIds=["i-00000000000000000"])
    calls = http(lab, "GET", "/sandbox/calls")
    assert [(call["action"], call["outcome"]) for call in calls] == [
        ("RunInstances", "ok"),
        ("RebootInstances", "InvalidInstanceID.NotFound"),
    ]
    assert calls[1]["resources"] == ["i-00000000000000000"]
    assert "canary" not in json.dumps(calls)
    assert instance in lab.sandbox.inventory()["instances"]
    assert http(lab, "DELETE", "/sandbox/calls") == []
    assert http(lab, "GET", "/sandbox/calls") == []
