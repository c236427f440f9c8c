"""A replica set as one of its members sees it."""

from dataclasses import dataclass
from datetime import datetime

from agent.mongod.quorum import Voter

WORKING_STATES = frozenset({"PRIMARY", "SECONDARY"})


@dataclass(frozen=True)
class MemberView:
    """One member. `optime` is the wall time of its newest oplog entry, None while unknown."""

    host: str
    state: str
    votes: int
    up: bool
    itself: bool
    optime: datetime | None

    @property
    def healthy(self) -> bool:
        """Answers, and serves reads or writes."""
        return self.up and self.state in WORKING_STATES


@dataclass(frozen=True)
class ReplicaSetView:
    """The set. `voting_members` leaves out members that MongoDB still holds back as newly added."""

    name: str
    members: tuple[MemberView, ...]
    voting_members: int

    @property
    def itself(self) -> MemberView | None:
        """The member that was asked."""
        return next((member for member in self.members if member.itself), None)

    @property
    def primary(self) -> MemberView | None:
        """The primary as the asked member knows it."""
        return next((member for member in self.members if member.up and member.state == "PRIMARY"), None)

    @property
    def voters(self) -> list[Voter]:
        """All voting members."""
        return [Voter(member.host, member.healthy) for member in self.members if member.votes]

    @property
    def settled(self) -> bool:
        """Every member is healthy and one of them is primary: nothing is about to change by itself."""
        return self.primary is not None and all(member.healthy for member in self.members)

    def lag_seconds(self, member: MemberView) -> float:
        """How far the member is behind the primary; 0 where it cannot be told."""
        primary = self.primary
        if primary is None or primary.optime is None or member.optime is None:
            return 0.0
        return max(0.0, (primary.optime - member.optime).total_seconds())
