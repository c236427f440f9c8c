"""EC2's eventual consistency: what was just made may not be shown yet, neither by id nor in a list."""

import re
import threading
import time

from scripts.sandbox import replies
from scripts.sandbox.refusal import Refusal

# What a call makes: the prefixes of the ids in its reply that are new.
MADE = {
    "RunInstances": "i|vol",
    "CreateVolume": "vol",
    "CreateVpc": "vpc",
    "CreateSubnet": "subnet",
    "CreateSecurityGroup": "sg",
    "CreateInternetGateway": "igw",
}
# How EC2 names a missing one.
MISSING = {
    "i": "InvalidInstanceID",
    "vol": "InvalidVolume",
    "vpc": "InvalidVpcID",
    "subnet": "InvalidSubnetID",
    "sg": "InvalidGroup",
    "igw": "InvalidInternetGatewayID",
}
# The set that a call lists, and the id of its items.
LISTED = {
    "DescribeInstances": ("instancesSet", "instanceId"),
    "DescribeVolumes": ("volumeSet", "volumeId"),
    "DescribeVpcs": ("vpcSet", "vpcId"),
    "DescribeSubnets": ("subnetSet", "subnetId"),
    "DescribeSecurityGroups": ("securityGroupInfo", "groupId"),
    "DescribeInternetGateways": ("internetGatewaySet", "internetGatewayId"),
}


class Visibility:
    """Ids that are hidden, and until when."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def hide(self, action: str, reply: bytes, seconds: float) -> None:
        """Hide what the call has made."""
        for made in re.findall(rf">((?:{MADE.get(action, '-')})-[0-9a-f]+)<", reply.decode(errors="replace")):
            with self._lock:
                self._until[made] = time.monotonic() + seconds

    def _hidden(self) -> set[str]:
        now = time.monotonic()
        with self._lock:
            self._until = {name: until for name, until in self._until.items() if until > now}
            return set(self._until)

    def check(self, parameters: dict[str, str]) -> None:
        """Refusal for a call that names a hidden id."""
        for value in self._hidden().intersection(parameters.values()):
            kind = MISSING[value.partition("-")[0]]
            raise Refusal(f"{kind}.NotFound", f"{value} does not exist (yet)")

    def rewrite(self, action: str, reply: bytes) -> bytes:
        """A list without what is hidden."""
        hidden = self._hidden()
        if not hidden or action not in LISTED:
            return reply
        group_name, id_name = LISTED[action]
        root = replies.parse(reply)
        for group in replies.all_named(root, group_name):
            for item in list(group):
                if replies.text(item, id_name) in hidden:
                    group.remove(item)
        for reservations in replies.all_named(root, "reservationSet"):
            for item in list(reservations):
                if not replies.items_of(item, "instancesSet"):
                    reservations.remove(item)
        return replies.dump(root)
