"""What EC2 refuses and moto lets pass."""

import re
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from scripts.sandbox.account import Account, state_of
from scripts.sandbox.modifications import Modifications
from scripts.sandbox.refusal import Refusal

# What must be true of an instance before the call.
NEEDED_STATES = {
    "StartInstances": {"stopped", "running"},
    "StopInstances": {"running", "stopping", "stopped"},
    "RebootInstances": {"running"},
}
# Attributes that only a stopped instance takes.
WHEN_STOPPED = ("InstanceType.Value", "UserData.Value", "EbsOptimized.Value")


def check(action: str, parameters: dict[str, str], account: Account, modifications: Modifications) -> None:
    """Refusal where EC2 would refuse. What does not exist is left to moto to name."""
    match action:
        case "RunInstances":
            _check_type(parameters.get("InstanceType", "m1.small"))
        case "AttachVolume":
            _check_attach(account, parameters)
        case "ModifyVolume":
            volume = account.volumes().get(parameters.get("VolumeId", ""))
            if volume is not None:
                modifications.check(volume.id, int(volume.size), parameters.get("Size", ""))
        case "ModifyInstanceAttribute":
            _check_attributes(account, parameters)
        case "DeleteSubnet":
            subnet = parameters.get("SubnetId", "")
            _nobody("subnet", subnet, [item.id for item in account.live() if item.subnet_id == subnet])
        case "DeleteSecurityGroup":
            group = parameters.get("GroupId", "")
            _nobody("security group", group, account.in_group(group))
        case "DeleteVpc":
            vpc = parameters.get("VpcId", "")
            _nobody("vpc", vpc, account.parts_of(vpc))
        case "DetachInternetGateway":
            vpc = parameters.get("VpcId", "")
            _nobody("network", vpc, [item.id for item in account.live() if item.vpc_id == vpc and item.public_ip])
    for instance_id in every(parameters, "InstanceId") if action in NEEDED_STATES else []:
        instance = account.instance(instance_id)
        if instance is not None and state_of(instance) not in NEEDED_STATES[action]:
            raise Refusal("IncorrectInstanceState", f"{instance_id} is {state_of(instance)}")


def _check_type(name: str) -> None:
    if name not in INSTANCE_TYPES:
        raise Refusal("InvalidParameterValue", f"Invalid value '{name}' for InstanceType: there is no such type")


def _check_attach(account: Account, parameters: dict[str, str]) -> None:
    instance: Any = account.instance(parameters.get("InstanceId", ""))
    volume = account.volumes().get(parameters.get("VolumeId", ""))
    if instance is None or volume is None:
        return
    if volume.attachment is not None:
        raise Refusal("VolumeInUse", f"{volume.id} is already attached to {volume.attachment.instance.id}")
    if state_of(instance) not in {"running", "stopped"}:
        raise Refusal("IncorrectState", f"{instance.id} is {state_of(instance)}")
    if volume.zone.name != instance.placement.zone:
        raise Refusal("InvalidVolume.ZoneMismatch", f"{volume.id} is in {volume.zone.name}")
    device = parameters.get("Device", "")
    if device in instance.block_device_mapping:
        raise Refusal("InvalidParameterValue", f"{device} of {instance.id} is already in use")


def _check_attributes(account: Account, parameters: dict[str, str]) -> None:
    instance = account.instance(parameters.get("InstanceId", ""))
    changed = [name for name in WHEN_STOPPED if name in parameters]
    if parameters.get("Attribute") in {"instanceType", "userData"}:
        changed.append("Value")
    if instance is not None and changed and state_of(instance) != "stopped":
        raise Refusal("IncorrectInstanceState", f"{instance.id} is {state_of(instance)}, not stopped")
    if "InstanceType.Value" in parameters:
        _check_type(parameters["InstanceType.Value"])


def _nobody(kind: str, name: str, users: list[str]) -> None:
    if users:
        raise Refusal("DependencyViolation", f"{kind} {name} has dependent objects: {', '.join(users[:3])}")


def every(parameters: dict[str, str], name: str) -> list[str]:
    """All values of a list parameter."""
    return [value for key, value in parameters.items() if re.fullmatch(rf"{name}\.\d+", key)]


def first(parameters: dict[str, str], name: str) -> str:
    """A parameter by its last part, wherever it stands: "NetworkInterface.1.SubnetId"."""
    return next((value for key, value in parameters.items() if key.rpartition(".")[2] == name), "")
