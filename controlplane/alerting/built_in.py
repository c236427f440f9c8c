"""The rules that come with WAP. They hold everywhere until a rule of the same name overrides them at some level."""

from datetime import timedelta

from controlplane.domain.alert import Comparison, Place, Rule, Severity

_ABOVE, _BELOW = Comparison.ABOVE, Comparison.BELOW
_WARNING, _CRITICAL = Severity.WARNING, Severity.CRITICAL
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_MINUTE = timedelta(minutes=1)
# Samples come every ten seconds.
_MOST_OF_5_MINUTES = 25


def _rule(
    name: str,
    metric: str,
    comparison: Comparison,
    threshold: float,
    severity: Severity,
    advice: str,
    *,
    window: timedelta = _MINUTE,
    hits: int = 3,
    hysteresis: float = 0.05,
) -> Rule:
    return Rule(
        id=f"built-in/{name}",
        name=name,
        place=Place(),
        metric=metric,
        comparison=comparison,
        threshold=threshold,
        window=window,
        hits=hits,
        severity=severity,
        hysteresis=hysteresis,
        repeat=_HOUR if severity is _CRITICAL else _DAY,
        advice=advice,
        built_in=True,
    )


def _condition(
    name: str, condition: str, comparison: Comparison, threshold: float, severity: Severity, advice: str
) -> Rule:
    return _rule(name, condition, comparison, threshold, severity, advice, window=timedelta(), hits=1, hysteresis=0.0)


BUILT_IN: tuple[Rule, ...] = (
    _condition(
        "Agent silent",
        "agent_silent",
        _ABOVE,
        90.0,
        _CRITICAL,
        "See whether the instance runs and reaches the control plane's agent port. mongod may well be up; WAP "
        "cannot see it.",
    ),
    # An ordinary election ends within 12 s of the primary's death (electionTimeoutMillis is 10 s).
    _condition(
        "No primary",
        "no_primary",
        _ABOVE,
        15.0,
        _CRITICAL,
        "The cluster takes no writes. Bring back members until a majority of the voters is up; look at the "
        "logs of those that are.",
    ),
    _condition(
        "mongod down",
        "mongod_down",
        _ABOVE,
        60.0,
        _CRITICAL,
        "The agent has not been able to start mongod. Read the node's problem and the end of its log; a full "
        "disk is a common reason.",
    ),
    _condition(
        "Certificate expiring",
        "certificate_expiry",
        _BELOW,
        25.0,
        _WARNING,
        "The agent should have renewed its certificate at half of its life. Look at the agent's log; after "
        "the expiry it cannot connect.",
    ),
    _rule(
        "Restarts",
        "mongod.restarts",
        _ABOVE,
        0.0,
        _WARNING,
        "mongod has restarted several times within an hour. Look into its log before each start: out of "
        "memory, asserts, disk errors.",
        window=_HOUR,
    ),
    _rule(
        "Replication lag",
        "replica_set.lag_seconds",
        _ABOVE,
        60.0,
        _WARNING,
        "Compare disk latency, CPU and network of this member with the primary's; lower the write load or "
        "give the member more IOPS.",
        hysteresis=0.5,
    ),
    _rule(
        "Replication lag critical",
        "replica_set.lag_seconds",
        _ABOVE,
        600.0,
        _CRITICAL,
        "The member falls behind for good when its lag exceeds the oplog window; it then needs a full resync. "
        "Act as for replication lag.",
        hysteresis=0.5,
    ),
    _rule(
        "Oplog window short",
        "replica_set.oplog_full_window_seconds",
        _BELOW,
        24 * 3600.0,
        _WARNING,
        "A member that is away for longer than this needs a full resync. Enlarge the oplog, or spread out bulk writes.",
        hysteresis=0.1,
    ),
    _rule(
        "Oplog window critical",
        "replica_set.oplog_full_window_seconds",
        _BELOW,
        3600.0,
        _CRITICAL,
        "Even a restart may take a member out for longer than this. Enlarge the oplog now, or stop the bulk "
        "write that fills it.",
        hysteresis=0.1,
    ),
    _rule(
        "Disk filling",
        "host.disk.used_percent",
        _ABOVE,
        75.0,
        _WARNING,
        "Plan a larger volume, or delete data. What is deleted is used again by mongod, but given back only "
        "by compact or a resync.",
        hysteresis=0.02,
    ),
    _rule(
        "Disk nearly full",
        "host.disk.used_percent",
        _ABOVE,
        90.0,
        _CRITICAL,
        "mongod stops when the volume is full. Grow the volume now; EBS lets it grow while in use.",
        hysteresis=0.02,
    ),
    _rule(
        "CPU high",
        "host.cpu.used_percent",
        _ABOVE,
        90.0,
        _WARNING,
        "Look at the slow queries for collection scans and missing indexes; otherwise choose a larger instance.",
        window=5 * _MINUTE,
        hits=_MOST_OF_5_MINUTES,
    ),
    _rule(
        "Connections near limit",
        "mongod.connections.used_percent",
        _ABOVE,
        80.0,
        _WARNING,
        "Look for clients without a connection pool or with many pools; each connection costs mongod about 1 MB.",
        hysteresis=0.1,
    ),
    # Atlas warns at 1,000 documents read for each returned; 10,000 is a finding.
    _rule(
        "Query targeting",
        "mongod.query.docs_examined_per_returned",
        _ABOVE,
        1000.0,
        _WARNING,
        "Queries read far more documents than they return. The slow-query page names the shapes and the index "
        "that would help.",
        window=5 * _MINUTE,
        hits=_MOST_OF_5_MINUTES,
        hysteresis=0.2,
    ),
)
