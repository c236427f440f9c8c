"""Ids: a prefix that says what the thing is, and 80 random bits that sort by nothing.

Ids are made at the edge (API, policies), never in planners or steps, so that a step that runs twice means the same thing.
"""

import base64
import secrets


def _new(prefix: str) -> str:
    return f"{prefix}-{base64.b32encode(secrets.token_bytes(10)).decode().lower()}"


def project_id() -> str:
    """Id of a project."""
    return _new("pr")


def cluster_id() -> str:
    """Id of a cluster."""
    return _new("cl")


def node_id() -> str:
    """Id of a node."""
    return _new("nd")


def operation_id() -> str:
    """Id of an operation; also the stem of its command ids and client tokens."""
    return _new("op")


def user_id() -> str:
    """Id of a user."""
    return _new("us")


def token_id() -> str:
    """Id of an API token or session."""
    return _new("tk")


def event_id() -> str:
    """Id of an audit event."""
    return _new("ev")


def request_id() -> str:
    """Id of a request whose caller brought none."""
    return _new("rq")


def alert_id() -> str:
    """Id of an alert."""
    return _new("al")


def alert_rule_id() -> str:
    """Id of an alert rule."""
    return _new("ar")


def silence_id() -> str:
    """Id of a silence."""
    return _new("si")


def channel_id() -> str:
    """Id of an alert channel."""
    return _new("ch")
