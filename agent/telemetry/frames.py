"""Samples as they go over the wire: values in the order of a set of names, so that no name is sent twice."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wap.agent.v1 import telemetry_pb2


@dataclass(frozen=True)
class Sample:
    """What was measured at one moment (seconds since 1970) about the node ("") or a thing within it."""

    time: float
    object: str
    # All names of the set, sorted; `values` may have fewer.
    names: tuple[str, ...]
    values: Mapping[str, float]


class Names:
    """The set of names that an object's samples use: grown by a name that is new, so that it soon stays as it is.

    A rate that cannot be told in one tick, or all of mongod's figures while it is down, are absent instead of making
    another set.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = tuple(sorted(known))

    def sample(self, time_s: float, values: Mapping[str, float], object: str = "") -> Sample:
        """The values as a sample of this set."""
        if not values.keys() <= set(self._known):
            self._known = tuple(sorted({*self._known, *values}))
        return Sample(time_s, object, self._known, values)


def frame_of(sample: Sample, set_id: int) -> telemetry_pb2.SampleFrame:
    """The frame without its number. What is missing or no number is told as absent: NaN and Inf never leave the node."""
    frame = telemetry_pb2.SampleFrame(metric_set_id=set_id)
    frame.time.FromMilliseconds(round(sample.time * 1000))
    for index, name in enumerate(sample.names):
        value = sample.values.get(name, math.nan)
        if math.isfinite(value):
            frame.values.append(value)
        else:
            frame.values.append(0.0)
            frame.absent.append(index)
    return frame
