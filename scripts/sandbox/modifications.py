"""ModifyVolume as EBS does it: modifying, optimizing, completed; one at a time, four within any 24 hours.

moto completes every change at once and allows any. (EBS's older rule, six hours between two changes of a volume, has
the same code, and is had by a fault: action ModifyVolume, code VolumeModificationRateExceeded.)
"""

import time
from dataclasses import dataclass, field

from scripts.sandbox import replies
from scripts.sandbox.refusal import Refusal

DAY, MAX_A_DAY = 24 * 3600.0, 4
# On EBS these take seconds to hours.
MODIFYING_SECONDS, OPTIMIZING_SECONDS = 0.5, 0.5


@dataclass
class Modifications:
    """When which volume was modified; `ahead` seconds are added to the clock, so that a day need not be waited for."""

    begun: dict[str, list[float]] = field(default_factory=dict)
    ahead: float = 0.0

    def check(self, volume_id: str, size_now: int, wanted_size: str) -> None:
        """Refusal where EBS would refuse the change."""
        if wanted_size.isdecimal() and int(wanted_size) < size_now:
            raise Refusal("InvalidParameterValue", f"new size {wanted_size} cannot be smaller than {size_now} GiB")
        state = self._state(volume_id)[0]
        if state != "completed":
            raise Refusal("IncorrectModificationState", f"{volume_id} is in modification state {state}")
        if sum(self._now() - moment < DAY for moment in self.begun.get(volume_id, [])) >= MAX_A_DAY:
            raise Refusal(
                "VolumeModificationRateExceeded",
                f"{volume_id} was modified {MAX_A_DAY} times within 24 hours, which is the maximum",
            )

    def begin(self, volume_id: str) -> None:
        """The change was accepted."""
        self.begun.setdefault(volume_id, []).append(self._now())

    def rewrite(self, reply: bytes) -> bytes:
        """moto's answer to ModifyVolume or DescribeVolumesModifications: only the last change, in its true state."""
        root = replies.parse(reply)
        for group in replies.all_named(root, "volumeModificationSet"):
            last = {replies.text(item, "volumeId"): item for item in group}
            for item in set(group) - set(last.values()):
                group.remove(item)
        for item in [*replies.all_named(root, "volumeModification"), *replies.items_of(root, "volumeModificationSet")]:
            state, progress = self._state(replies.text(item, "volumeId"))
            replies.put(item, "modificationState", state)
            replies.put(item, "progress", str(progress))
            if state != "completed":
                replies.drop(item, "endTime")
        return replies.dump(root)

    def _state(self, volume_id: str) -> tuple[str, int]:
        age = self._now() - max(self.begun.get(volume_id, [0.0]))
        if age < MODIFYING_SECONDS:
            return "modifying", 0
        whole = MODIFYING_SECONDS + OPTIMIZING_SECONDS
        return ("optimizing", min(99, int(100 * age / whole))) if age < whole else ("completed", 100)

    def _now(self) -> float:
        return time.time() + self.ahead
