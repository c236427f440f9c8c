"""A sandbox per test, in this process, in a directory with a space in its name, under plain boto3."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from scripts.sandbox import Sandbox
from tests.waiting import wait_until

REGION = "us-east-1"
ZONE, OTHER_ZONE = "us-east-1a", "us-east-1b"
IMAGE = "ami-12c6146b"
SLEEP = "#!/bin/bash\nexec sleep 600\n"


def ec2_at(endpoint: str, *, attempts: int = 1) -> Any:
    """A client that repeats nothing, unless told to."""
    return boto3.client(
        "ec2",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    """EC2's error code for a call that must be refused."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return str(error.value.response["Error"]["Code"])


@dataclass
class Lab:
    """A running sandbox and a client."""

    sandbox: Sandbox
    ec2: Any

    def launch(self, script: str = SLEEP, **more: Any) -> str:
        """Id of a new instance that runs this user data."""
        wish = {"ImageId": IMAGE, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1, "UserData": script}
        return str(self.ec2.run_instances(**wish | more)["Instances"][0]["InstanceId"])

    def volume(self, **more: Any) -> str:
        """Id of a new volume."""
        return str(
            self.ec2.create_volume(**{"AvailabilityZone": ZONE, "Size": 1, "VolumeType": "gp3"} | more)["VolumeId"]
        )

    def attach(self, volume: str, instance: str) -> None:
        self.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")

    def instance(self, id: str) -> dict[str, Any]:
        """What EC2 says of it."""
        return dict(self.ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0])

    def state(self, id: str) -> str:
        return str(self.instance(id)["State"]["Name"])

    def machine(self, id: str) -> dict[str, Any]:
        """What the sandbox says of it."""
        return next(item for item in self.sandbox.instances() if item["id"] == id)

    def pids(self, id: str) -> list[int]:
        return list(self.machine(id)["pids"])

    def root(self, id: str) -> Path:
        return Path(self.machine(id)["root"])

    def link(self, id: str, volume: str) -> Path:
        """Where the instance finds the volume."""
        name = f"nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
        return self.root(id) / "dev" / "disk" / "by-id" / name

    def wrote(self, id: str, name: str) -> str:
        """Text of a file that the instance writes (sooner or later)."""
        file = self.root(id) / name
        return wait_until(lambda: file.read_text().strip() if file.exists() else "", within=15)

    def stop(self, id: str) -> None:
        """Stop an instance and wait until it is stopped."""
        self.ec2.stop_instances(InstanceIds=[id])
        wait_until(lambda: self.state(id) == "stopped", within=15)


def lab_in(state: Path, **options: Any) -> Lab:
    sandbox = Sandbox(state, **options).start()
    return Lab(sandbox, ec2_at(sandbox.endpoint))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """State directory of the test's sandbox."""
    return tmp_path / "a sandbox"


@pytest.fixture
def lab(state: Path) -> Iterator[Lab]:
    running = lab_in(state, volumes="directory")
    yield running
    running.sandbox.stop()
