"""What was measured and logged, on disk until the control plane has it, within a bound; the oldest goes first, counted.

Samples and log lines have a bound each, so that a flood of lines costs no samples. A disk that cannot be written costs
what comes in meanwhile, and nothing else: the agent does its work without telemetry too.
"""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from wap.agent.v1 import telemetry_pb2

from agent.logs import Log
from agent.telemetry.database import FRAME, LINE, Database
from agent.telemetry.frames import Sample, frame_of

# An hour of samples every ten seconds, with 200 namespaces a minute, is 3 MB; an hour of log lines at the limit of 1,000
# a minute about 30 MB.
MOST_FRAME_BYTES, MOST_LINE_BYTES = 16 * 1024 * 1024, 48 * 1024 * 1024
# In memory, where there is no file: a minute or so.
SMALL_BYTES = 1024 * 1024
BUFFER_FULL, NOT_WRITTEN = "buffer full", "disk not writable"
T = TypeVar("T")
log = Log(__name__)


@dataclass(frozen=True)
class Pending:
    """The oldest of what is not acknowledged, in the order of its numbers, with the sets that its frames use."""

    frames: Sequence[telemetry_pb2.SampleFrame] = ()
    lines: Sequence[telemetry_pb2.LogRecord] = ()
    sets: Mapping[int, telemetry_pb2.MetricSet] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.frames or self.lines)


class Buffer:
    """Samples and lines on their way. Each call is carried out in one thread of the buffer's own.

    `boot_id` is another one after each start of the machine.
    """

    def __init__(
        self,
        path: Path,
        boot_id: str = "",
        *,
        most_frame_bytes: int = MOST_FRAME_BYTES,
        most_line_bytes: int = MOST_LINE_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._thread = ThreadPoolExecutor(1, "telemetry-buffer")
        self._news = asyncio.Event()
        # What was lost here since the agent's start, by reason.
        self.frames_dropped: Counter[str] = Counter()
        self.lines_dropped: Counter[str] = Counter()
        # Not sent again, also where a full disk does not even let them be deleted.
        self._acknowledged = {FRAME: 0, LINE: 0}
        self._most = {FRAME: most_frame_bytes, LINE: most_line_bytes}
        self._database = self._thread.submit(Database, path, boot_id, now).result()

    @property
    def bytes(self) -> int:
        """Bytes that wait to be acknowledged."""
        return sum(self._database.bytes.values())

    def news(self) -> asyncio.Event:
        """Is set when something is added. Take it before looking what is pending, so that nothing falls in between."""
        return self._news

    async def add(
        self,
        samples: Sequence[Sample] = (),
        lines: Sequence[telemetry_pb2.LogRecord] = (),
        remember: Mapping[str, str] | None = None,
    ) -> bool:
        """Keep these and, in the same transaction, what is to be remembered: how far a log was read.

        False where the disk takes nothing. Samples are lost then, and counted; lines can be read again, so they are not.
        """
        kept = await self._run(lambda: self._add(samples, lines, remember or {}))
        news, self._news = self._news, asyncio.Event()
        news.set()
        return kept

    async def pending(self, most_bytes: int) -> Pending:
        """The oldest samples and, in the room that they leave, the oldest lines; of what there is at least one."""
        return await self._run(lambda: self._pending(most_bytes))

    async def acknowledge(self, frame_sequence: int, line_sequence: int) -> None:
        """The control plane has everything up to and including these numbers.

        Where it has more than was ever given, the file is older than it should be (a disk that was restored): what waits
        is numbered anew, beyond those.
        """
        await self._run(lambda: self._acknowledge({FRAME: frame_sequence, LINE: line_sequence}))

    async def remembered(self, name: str) -> str:
        """What was last remembered under this name; else empty."""
        return await self._run(lambda: self._database.recall(name))

    async def close(self) -> None:
        """Let go of the file."""
        await self._run(self._database.close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _add(
        self, samples: Sequence[Sample], lines: Sequence[telemetry_pb2.LogRecord], remember: Mapping[str, str]
    ) -> bool:
        database = self._database
        try:
            with database.transaction():
                frames = (frame_of(sample, database.set_id(sample.object, sample.names)) for sample in samples)
                database.insert(FRAME, [frame.SerializeToString() for frame in frames])
                database.insert(LINE, [line.SerializeToString() for line in lines])
                for name, value in remember.items():
                    database.remember(name, value)
                dropped = {table: database.make_room(table, self._room(table)) for table in self._most}
        except sqlite3.Error as error:
            log.warning("the telemetry buffer takes nothing", why=str(error))
            self.frames_dropped[NOT_WRITTEN] += len(samples)
            return False
        self.frames_dropped[BUFFER_FULL] += dropped[FRAME]
        self.lines_dropped[BUFFER_FULL] += dropped[LINE]
        return True

    def _room(self, table: str) -> int:
        return self._most[table] if self._database.on_disk else min(SMALL_BYTES, self._most[table])

    def _pending(self, most_bytes: int) -> Pending:
        try:
            return self._read(most_bytes)
        except sqlite3.Error as error:
            log.warning("the telemetry buffer cannot be read", why=str(error))
            return Pending()

    def _read(self, most_bytes: int) -> Pending:
        rows, room = self._database.oldest(FRAME, most_bytes, after=self._acknowledged[FRAME], at_least=1)
        frames = [telemetry_pb2.SampleFrame.FromString(body) for _, body in rows]
        for frame, (sequence, _) in zip(frames, rows, strict=True):
            frame.sequence = sequence
        rows, _ = self._database.oldest(LINE, room, after=self._acknowledged[LINE], at_least=0 if frames else 1)
        lines = [telemetry_pb2.LogRecord.FromString(body) for _, body in rows]
        for line, (sequence, _) in zip(lines, rows, strict=True):
            line.sequence = sequence
        return Pending(frames, lines, self._sets({frame.metric_set_id for frame in frames}))

    def _sets(self, numbers: set[int]) -> dict[int, telemetry_pb2.MetricSet]:
        found = {}
        for number in numbers:
            thing, names = self._database.set_of(number)
            found[number] = telemetry_pb2.MetricSet(id=number, object=thing, names=names)
        return found

    def _acknowledge(self, sequences: Mapping[str, int]) -> None:
        self._acknowledged = dict(sequences)
        try:
            with self._database.transaction():
                for table, sequence in sequences.items():
                    if sequence > self._database.given(table):
                        log.warning("the control plane has more than this buffer knows of", rows=table)
                        self._database.number_anew(table, sequence)
                    else:
                        self._database.forget(table, sequence)
        except sqlite3.Error as error:  # it is tried again with the next answer
            log.warning("the telemetry buffer takes nothing", why=str(error))
