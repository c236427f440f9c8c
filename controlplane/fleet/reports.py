"""Reports of agents made fit to be kept: no agent can fill the database with one, or break the write of all the others."""

import math
from datetime import datetime
from typing import Any

from google.protobuf import json_format
from wap.agent.v1 import report_pb2

# Changes of these alone are not worth a write at once.
NOISE = ("time", "cpu_percent", "memory_used_bytes", "disk_used_bytes", "lag_seconds")
# MongoDB's own limit of members in a set; longest text kept from an agent.
MAX_MEMBERS, MAX_TEXT = 50, 500
_TEXTS = ("problem", "mongodb_version", "replica_set", "member_state")
_FIGURES = ("cpu_percent", "lag_seconds")


def plain(text: str, most: int = MAX_TEXT) -> str:
    """Text for a column: PostgreSQL takes no NUL."""
    return text[:most].replace("\0", "")


def bound(report: report_pb2.NodeReport, now: datetime) -> None:
    """Cut what no honest agent sends. The time of a report is when we got it, where the agent's own is no date."""
    for name in _TEXTS:
        if (text := getattr(report, name)) and (kept := plain(text)) != text:
            setattr(report, name, kept)
    for name in _FIGURES:
        if not math.isfinite(getattr(report, name)):
            report.ClearField(name)  # type: ignore[arg-type]
    if report.mongod_state not in report_pb2.MongodState.values():
        report.ClearField("mongod_state")
    # A timestamp outside the years 1 to 9999 cannot be written as text.
    if abs(report.time.seconds - now.timestamp()) > 10**9 or not 0 <= report.time.nanos < 10**9:
        report.time.FromDatetime(now)
    del report.members[MAX_MEMBERS:]
    for member in report.members:
        member.host, member.state = plain(member.host), plain(member.state)
        if not math.isfinite(member.lag_seconds):
            member.ClearField("lag_seconds")


def essence(report: report_pb2.NodeReport) -> bytes:
    """The report without what changes all the time."""
    copy = report_pb2.NodeReport()
    copy.CopyFrom(report)
    for name in NOISE:
        copy.ClearField(name)  # type: ignore[arg-type]
    for member in copy.members:
        member.ClearField("lag_seconds")
    return copy.SerializeToString(deterministic=True)


def as_json(report: report_pb2.NodeReport) -> dict[str, Any]:
    """The report as it stands in the database: plain values under proto field names."""
    return json_format.MessageToDict(report, preserving_proto_field_name=True)
