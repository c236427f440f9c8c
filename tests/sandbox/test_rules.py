"""What EC2 refuses is refused, with EC2's code, and changes nothing."""

import json
import urllib.request
from typing import Any

import pytest

from tests.sandbox.conftest import IMAGE, OTHER_ZONE, ZONE, Lab, refused
from tests.waiting import wait_until


@pytest.mark.parametrize("name", ["m6i.gigantic", "banana", "m6i.large ", "zz9.large"])
def test_an_unknown_instance_type_is_refused(lab: Lab, name: str) -> None:
    wish = {"ImageId": IMAGE, "InstanceType": name, "MinCount": 1, "MaxCount": 1}
    assert refused(lab.ec2.run_instances, **wish) == "InvalidParameterValue"
    assert lab.sandbox.inventory()["instances"] == []


def test_a_call_must_suit_the_instances_state(lab: Lab) -> None:
    ec2 = lab.ec2
    instance, gone = lab.launch("#!/bin/bash\ntrap 'sleep 0.5; exit' TERM\nwhile :; do sleep 0.1; done\n"), lab.launch()
    ec2.terminate_instances(InstanceIds=[gone])
    for call in (ec2.start_instances, ec2.stop_instances, ec2.reboot_instances):
        assert refused(call, InstanceIds=[gone]) == "IncorrectInstanceState"
    ec2.start_instances(InstanceIds=[instance])  # it runs already, which is fine
    wish = {"InstanceId": instance, "InstanceType": {"Value": "m6i.xlarge"}}
    assert refused(ec2.modify_instance_attribute, **wish) == "IncorrectInstanceState"

    ec2.stop_instances(InstanceIds=[instance])
    assert lab.state(instance) == "stopping"
    assert refused(ec2.start_instances, InstanceIds=[instance]) == "IncorrectInstanceState"
    assert refused(ec2.modify_instance_attribute, **wish) == "IncorrectInstanceState"
    wait_until(lambda: lab.state(instance) == "stopped", within=10)
    assert refused(ec2.reboot_instances, InstanceIds=[instance]) == "IncorrectInstanceState"
    ec2.stop_instances(InstanceIds=[instance])  # again
    assert lab.state(instance) == "stopped"

    unknown = wish | {"InstanceType": {"Value": "banana"}}
    assert refused(ec2.modify_instance_attribute, **unknown) == "InvalidParameterValue"
    ec2.modify_instance_attribute(**wish)
    assert lab.instance(instance)["InstanceType"] == "m6i.xlarge"


def test_a_call_for_one_good_and_one_bad_instance_changes_neither(lab: Lab) -> None:
    good, gone = lab.launch(), lab.launch()
    lab.ec2.terminate_instances(InstanceIds=[gone])
    assert refused(lab.ec2.stop_instances, InstanceIds=[good, gone]) == "IncorrectInstanceState"
    assert lab.state(good) == "running"


def test_volumes_are_attached_where_and_when_they_can_be(lab: Lab) -> None:
    one, two, gone = lab.launch(), lab.launch(), lab.launch()
    lab.ec2.terminate_instances(InstanceIds=[gone])
    here, there = lab.volume(), lab.volume(AvailabilityZone=OTHER_ZONE)

    def attach(volume: str, instance: str, device: str = "/dev/sdf") -> dict[str, str]:
        return {"VolumeId": volume, "InstanceId": instance, "Device": device}

    assert refused(lab.ec2.attach_volume, **attach(there, one)) == "InvalidVolume.ZoneMismatch"
    assert refused(lab.ec2.attach_volume, **attach(here, gone)) == "IncorrectState"
    lab.attach(here, one)
    assert refused(lab.ec2.attach_volume, **attach(here, two)) == "VolumeInUse"
    assert refused(lab.ec2.attach_volume, **attach(lab.volume(), one)) == "InvalidParameterValue"
    assert refused(lab.ec2.delete_volume, VolumeId=here) == "VolumeInUse"


def test_nothing_is_deleted_that_others_depend_on(lab: Lab) -> None:
    ec2 = lab.ec2
    vpc = ec2.create_vpc(CidrBlock="127.79.0.0/24")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="127.79.0.0/27", AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    interface = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group], "AssociatePublicIpAddress": True}
    instance = lab.launch(NetworkInterfaces=[interface])
    detach = {"InternetGatewayId": gateway, "VpcId": vpc}
    in_order: list[tuple[Any, dict[str, Any]]] = [
        (ec2.detach_internet_gateway, detach),
        (ec2.delete_internet_gateway, {"InternetGatewayId": gateway}),
        (ec2.delete_security_group, {"GroupId": group}),
        (ec2.delete_subnet, {"SubnetId": subnet}),
        (ec2.delete_vpc, {"VpcId": vpc}),
    ]
    for call, arguments in in_order:
        assert (call, refused(call, **arguments)) == (call, "DependencyViolation")
    ec2.terminate_instances(InstanceIds=[instance])
    left = [subnet, gateway, group]
    for call, arguments in in_order[:4]:
        assert refused(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation", left
        call(**arguments)
    ec2.delete_vpc(VpcId=vpc)
    assert not any(lab.sandbox.inventory().values())


def test_the_inventory_names_everything_that_is_left(lab: Lab) -> None:
    nothing = lab.sandbox.inventory()
    assert not any(nothing.values())
    vpc = lab.ec2.create_vpc(CidrBlock="127.79.0.0/24")["Vpc"]["VpcId"]
    subnet = lab.ec2.create_subnet(VpcId=vpc, CidrBlock="127.79.0.0/27")["Subnet"]["SubnetId"]
    group = lab.ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    gateway = lab.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    instance, volume = lab.launch(), lab.volume()
    snapshot = lab.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    with urllib.request.urlopen(f"{lab.sandbox.endpoint}/sandbox/inventory", timeout=10) as reply:
        found = json.load(reply)
    assert found.pop("processes") >= 1
    assert volume in found.pop("volumes")
    assert found == {
        "instances": [instance],
        "snapshots": [snapshot],
        "vpcs": [vpc],
        "subnets": [subnet],
        "security_groups": [group],
        "internet_gateways": [gateway],
        "loop_devices": [],
    }


def modification(lab: Lab, volume: str) -> dict[str, Any]:
    (found,) = lab.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
    return dict(found)


def ahead(lab: Lab, seconds: float) -> None:
    url, body = f"{lab.sandbox.endpoint}/sandbox/clock", json.dumps({"ahead_seconds": seconds}).encode()
    urllib.request.urlopen(urllib.request.Request(url, body), timeout=10).close()


def test_a_volume_changes_step_by_step_and_four_times_a_day(lab: Lab) -> None:
    volume = lab.volume(Size=10)
    seen = lab.ec2.modify_volume(VolumeId=volume, Size=11)["VolumeModification"]
    assert (seen["ModificationState"], seen["OriginalSize"], seen["TargetSize"]) == ("modifying", 10, 11)
    assert refused(lab.ec2.modify_volume, VolumeId=volume, Size=12) == "IncorrectModificationState"
    wait_until(lambda: modification(lab, volume)["ModificationState"] == "optimizing", within=15, every=0.02)
    wait_until(lambda: modification(lab, volume)["ModificationState"] == "completed", within=15)
    assert modification(lab, volume)["Progress"] == 100

    assert refused(lab.ec2.modify_volume, VolumeId=volume, Size=10) == "InvalidParameterValue"
    for hour in (1, 2, 3):
        ahead(lab, hour * 3600)
        lab.ec2.modify_volume(VolumeId=volume, Size=11 + hour)
    ahead(lab, 23 * 3600)
    assert refused(lab.ec2.modify_volume, VolumeId=volume, Size=20) == "VolumeModificationRateExceeded"
    assert lab.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == 14
    ahead(lab, 24 * 3600 + 60)
    lab.ec2.modify_volume(VolumeId=volume, Size=20)
    assert modification(lab, volume)["TargetSize"] == 20
