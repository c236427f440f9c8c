"""How healthy a cluster is, from what the agents of its members last said. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.domain.cluster import ClusterHealth
from controlplane.domain.node import AgentState

FRESH = timedelta(seconds=20)
GOOD_STATES = frozenset({"PRIMARY", "SECONDARY", "ARBITER"})


@dataclass(frozen=True)
class MemberFacts:
    """What is known of one member."""

    name: str
    agent_state: str
    last_seen_at: datetime | None
    report: Mapping[str, Any] | None


@dataclass(frozen=True)
class MemberHealth:
    """What that means. A member that serves may still have a problem, for example a wrong clock."""

    name: str
    state: str
    healthy: bool
    problem: str


def member_health(facts: MemberFacts, now: datetime) -> MemberHealth:
    """A member counts as healthy only by a fresh word of its own agent."""
    report = facts.report or {}
    state = str(report.get("member_state", ""))
    fresh = facts.last_seen_at is not None and now - facts.last_seen_at <= FRESH
    if facts.agent_state != AgentState.CONNECTED or not fresh:
        return MemberHealth(facts.name, state if fresh else "", False, f"its agent is {facts.agent_state.lower()}")
    if report.get("problem"):
        return MemberHealth(facts.name, state, state in GOOD_STATES, str(report["problem"]))
    if state not in GOOD_STATES:
        return MemberHealth(facts.name, state, False, f"it is {state or 'not a member yet'}")
    return MemberHealth(facts.name, state, True, "")


def cluster_health(members: Sequence[MemberHealth]) -> tuple[ClusterHealth, str]:
    """Health and why, in one sentence."""
    if not members or not any(member.state for member in members):
        return ClusterHealth.UNKNOWN, "no agent has reported lately"
    primaries = [member.name for member in members if member.state == "PRIMARY" and member.healthy]
    healthy = sum(member.healthy for member in members)
    if not primaries:
        return ClusterHealth.UNAVAILABLE, f"no primary; {healthy} of {len(members)} members are healthy"
    if len(primaries) > 1:
        return ClusterHealth.DEGRADED, f"two members say they are primary: {', '.join(primaries)}"
    bad = [f"{member.name}: {member.problem}" for member in members if member.problem]
    if bad:
        return ClusterHealth.DEGRADED, "; ".join(bad)
    return ClusterHealth.HEALTHY, f"{primaries[0]} is primary, all {len(members)} members are healthy"
