"""What agents and control plane say to each other in the benchmark: the same messages to both servers.

Real agents beat every 5 s with a report of a healthy member of three, and send 60 figures every 10 s.
"""

import resource
from datetime import UTC, datetime

from google.protobuf import timestamp_pb2
from wap.agent.v1 import command_pb2, report_pb2, stream_pb2, telemetry_pb2

from collector.catalog import HOST, MONGOD

HEARTBEAT_SECONDS, SAMPLE_SECONDS = 5.0, 10.0
VALUES = 60
# Figures of the catalogue, so that the control plane takes each of them.
NAMES = (HOST[:20] + MONGOD)[:VALUES]
EPOCH = 1
HOSTS = ("10.0.0.11:27017", "10.0.1.11:27017", "10.0.2.11:27017")


def hello(host_name: str) -> stream_pb2.ConnectRequest:
    """The first message."""
    return stream_pb2.ConnectRequest(
        hello=stream_pb2.Hello(protocol=1, agent_version="0.1.0", host_name=host_name, boot_id=host_name)
    )


def heartbeat(number: int) -> stream_pb2.ConnectRequest:
    """A heartbeat; figures that always change do change."""
    report = report_pb2.NodeReport(
        time=now(),
        mongod_state=report_pb2.MONGOD_STATE_RUNNING,
        mongod_pid=4711,
        mongodb_version="6.0.5",
        replica_set="rs0",
        member_state="SECONDARY",
        members=[
            report_pb2.MemberView(host=host, state="SECONDARY", healthy=True, lag_seconds=number % 3) for host in HOSTS
        ],
        disk_total_bytes=20 * 2**30,
        disk_used_bytes=5 * 2**30 + number,
        cpu_percent=number % 100,
        memory_total_bytes=8 * 2**30,
        memory_used_bytes=3 * 2**30 + number,
    )
    return stream_pb2.ConnectRequest(heartbeat=stream_pb2.Heartbeat(report=report))


def sample(sequence: int, *, first: bool) -> telemetry_pb2.ReportRequest:
    """One frame; the first of a stream names its values."""
    frame = telemetry_pb2.SampleFrame(
        sequence=sequence, time=now(), metric_set_id=1, values=[sequence % 100 + value / 7 for value in range(VALUES)]
    )
    sets = [telemetry_pb2.MetricSet(id=1, names=NAMES)] if first else []
    return telemetry_pb2.ReportRequest(metric_sets=sets, frames=[frame])


def command(command_id: str) -> command_pb2.Command:
    """An order that a real agent would take."""
    deadline = timestamp_pb2.Timestamp()
    deadline.FromSeconds(int(datetime.now(UTC).timestamp()) + 120)
    return command_pb2.Command(
        id=command_id, epoch=EPOCH, deadline=deadline, prepare_volume=command_pb2.PrepareVolume(volume_id="vol-1")
    )


def accepted(command_id: str) -> stream_pb2.ConnectRequest:
    """It is in the journal."""
    return stream_pb2.ConnectRequest(command_accepted=command_pb2.CommandAccepted(command_id=command_id))


def result(command_id: str) -> stream_pb2.ConnectRequest:
    """It is done."""
    done = command_pb2.CommandResult(
        command_id=command_id,
        detail="mounted",
        prepare_volume=command_pb2.PrepareVolumeResult(mount_path="/data", total_bytes=2**34),
    )
    return stream_pb2.ConnectRequest(command_result=done)


def now() -> timestamp_pb2.Timestamp:
    """The time of a message."""
    stamp = timestamp_pb2.Timestamp()
    stamp.GetCurrentTime()
    return stamp


def raise_file_limit() -> None:
    """As many connections as the machine allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
