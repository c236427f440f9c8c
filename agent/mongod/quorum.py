"""Would the set still have a majority? mongod itself does not ask (it stops with exit 0 and leaves no primary)."""

from collections.abc import Collection
from dataclasses import dataclass

from agent.failure import FailureCode, NodeFailure


@dataclass(frozen=True)
class Voter:
    """One voting member as the node sees it. Healthy: answers, and is PRIMARY or SECONDARY."""

    host: str
    healthy: bool


def check_leaving(voters: Collection[Voter], host: str, *, removed: bool = False) -> None:
    """Raise QUORUM_AT_RISK when the set loses its majority without `host`.

    A member that stops still counts among the voters; one that is `removed` from the configuration does not.
    """
    if host not in {voter.host for voter in voters}:
        return
    healthy = sum(voter.healthy for voter in voters if voter.host != host)
    total = len(voters) - 1 if removed else len(voters)
    need = total // 2 + 1
    if healthy < need:
        raise NodeFailure(
            FailureCode.QUORUM_AT_RISK,
            f"without {host} the set has {healthy} healthy of {total} voters and needs {need} for a primary",
            given=host,
            allowed="repair the other members first",
            retryable=True,
        )
