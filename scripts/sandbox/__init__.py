"""The EC2 sandbox: a stand-in for AWS on one machine, for demos, tests and development.

It imitates the EC2 query API (moto) with what moto lacks added in front (`shim`): client tokens, state and dependency
checks, injectable faults; and what EC2 does behind the API (`hypervisor`): an instance is a process group that runs its
real user data, a volume is a directory or, as root, a file system on a loop device.

It does not imitate: machines (one kernel, one clock, shared cores), security groups' packet filtering, real block device
timing, IAM and signatures, IMDS. Prices, quotas and capacity are whatever a fault says.
"""

from scripts.sandbox.faults import Fault
from scripts.sandbox.refusal import StartError
from scripts.sandbox.server import Sandbox

__all__ = ["Fault", "Sandbox", "StartError"]
