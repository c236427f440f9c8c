"""moto's EC2 backend as the hypervisor and the shim need it: instances, volumes, dependencies; kept over restarts."""

import base64
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moto.backends import get_backend

from scripts.sandbox.refusal import StartError

ACCOUNT = "123456789012"
LIVE = ("pending", "running", "stopping", "stopped")
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


class Account:
    """One region of moto's only account. Whoever changes it, or saves it, holds `lock`."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.lock = threading.RLock()

    @property
    def ec2(self) -> Any:
        """moto's backend object."""
        return get_backend("ec2")[ACCOUNT][self.region]

    def save(self, path: Path, extra: object) -> None:
        """Write everything, atomically. Not synced to the disk: a killed sandbox loses nothing, a lost machine may."""
        scratch = path.with_suffix(".new")
        with self.lock:
            scratch.write_bytes(pickle.dumps((self.ec2, extra)))
            scratch.replace(path)

    def load(self, path: Path) -> Any:
        """Bring everything back; the `extra` of save. The file is our own, from our own 0700 state directory."""
        try:
            ec2, extra = pickle.loads(path.read_bytes())
        except OSError as error:
            raise StartError(f"{path} cannot be read: {error.strerror}") from None
        except Exception:  # noqa: BLE001 - unpickling raises what it likes
            raise StartError(
                f"{path} is damaged or of another version: move {path.parent} away and start anew"
            ) from None
        get_backend("ec2")[ACCOUNT][self.region] = ec2
        return extra

    def reset(self) -> None:
        """An empty account."""
        self.ec2.reset()

    def instances(self) -> Iterator[Any]:
        """All instances that EC2 still shows."""
        for reservation in list(self.ec2.reservations.values()):
            yield from reservation.instances

    def instance(self, instance_id: str) -> Any | None:
        """One instance."""
        return next((item for item in self.instances() if item.id == instance_id), None)

    def launched_with(self, client_token: str) -> list[str]:
        """Ids of the instances of a client token."""
        return [item.id for item in self.instances() if item.client_token == client_token]

    def volumes(self) -> dict[str, Any]:
        """Volumes by id."""
        return dict(self.ec2.volumes)

    def data_volumes_of(self, instance: Any) -> dict[str, Any]:
        """Volumes attached to the instance, without its root volume."""
        return {
            volume_id: volume
            for volume_id, volume in self.volumes().items()
            if volume.attachment is not None
            and volume.attachment.instance.id == instance.id
            and volume.attachment.device != instance.root_device_name
        }

    def zone_of(self, subnet_id: str) -> str:
        """Zone of a subnet, "" if there is none."""
        for zones in self.ec2.subnets.values():
            if subnet_id in zones:
                return str(zones[subnet_id].availability_zone)
        return ""

    def live(self) -> list[Any]:
        """Instances that are not terminated."""
        return [item for item in self.instances() if state_of(item) in LIVE]

    def in_group(self, group_id: str) -> list[str]:
        """Live instances with an interface in the security group."""
        return [item.id for item in self.live() if group_id in {group.id for group in _groups(item)}]

    def parts_of(self, vpc_id: str) -> list[str]:
        """What keeps a VPC from being deleted: subnets, attached gateways, security groups but the default one."""
        subnets = [s.id for zones in self.ec2.subnets.values() for s in zones.values() if s.vpc_id == vpc_id]
        gateways = [g.id for g in self.ec2.internet_gateways.values() if g.vpc is not None and g.vpc.id == vpc_id]
        groups = [g.id for g in self.ec2.groups.get(vpc_id, {}).values() if g.name != "default"]
        return subnets + gateways + groups

    def inventory(self) -> dict[str, list[str]]:
        """What costs money or stands in the way, by kind; moto's default VPC, its parts and its images' snapshots are
        not counted."""
        vpcs = [vpc.id for vpc in self.ec2.vpcs.values() if str(vpc.is_default).lower() != "true"]
        parts = [part for vpc in vpcs for part in self.parts_of(vpc)]
        snapshots = [item.id for item in self.ec2.snapshots.values() if not item.from_ami]
        return {
            "instances": [item.id for item in self.live()],
            "volumes": list(self.ec2.volumes),
            "snapshots": snapshots,
            "vpcs": vpcs,
            "subnets": [part for part in parts if part.startswith("subnet-")],
            "security_groups": [part for part in parts if part.startswith("sg-")],
            "internet_gateways": list(self.ec2.internet_gateways),
        }


def _groups(instance: Any) -> list[Any]:
    return [*instance.security_groups, *(group for nic in instance.nics.values() for group in nic.group_set)]


def state_of(instance: Any) -> str:
    """EC2's name of the instance's state."""
    return str(instance.state)


def set_state(instance: Any, name: str) -> None:
    """Put the instance into a state that moto leaves out."""
    instance._state.name, instance._state.code = name, CODES[name]


def user_data_of(instance: Any) -> str:
    """User data as text."""
    return base64.b64decode(str(instance.user_data)).decode() if instance.user_data else ""
