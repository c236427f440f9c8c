"""Following a log file through rotation and restart, no line lost or doubled.

A file is known by its inode and by a checksum of its first bytes: inodes are used again, and a log that is rotated by
copying keeps its own. Rotation by renaming (mongod's own, logrotate with a signal) leaves the old file open here until
the new one has lines: only then the writer has let go of it.
"""

import dataclasses
import json
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 1024
CHUNK_BYTES = 1024 * 1024
# A longer line is given out up to here; the rest is skipped.
LONGEST_LINE = 256 * 1024
# Of a log that was never read, the newest part.
FIRST_BYTES = 16 * 1024 * 1024
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a log is read. Kept as text by `dumps`, beside the lines or in a file of its own."""

    device: int
    inode: int
    # After the last line that was given out.
    offset: int
    # CRC-32 of the first `check_bytes` bytes of the file.
    check: int
    check_bytes: int
    # Of the file's last change that was seen, in ns since 1970: what rotated files came later.
    changed: int
    # The rest of a line that was too long is still to be skipped.
    skipping: bool = False

    def dumps(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class Batch:
    """Complete lines without their line ends, and the position behind them (None: there is no file yet)."""

    lines: list[bytes]
    position: Position | None
    # More can be read at once.
    more: bool


def loads(text: str) -> Position | None:
    """A position from its text; None for anything else."""
    try:
        values = json.loads(text)
        position = Position(**values)
    except (ValueError, TypeError):
        return None
    numbers = [value for name, value in values.items() if name != "skipping"]
    is_sound = all(type(value) is int and value >= 0 for value in numbers) and position.check_bytes <= HEAD_BYTES
    return position if is_sound and isinstance(position.skipping, bool) else None


class Follower:
    """Reads one log. Synchronous, for one thread. Raises OSError for a log that is there and cannot be read.

    `position` (text) wins over the state file; with neither, the newest `first_bytes` are read.
    """

    def __init__(
        self, path: Path, state_path: Path | None = None, position: str = "", *, first_bytes: int = FIRST_BYTES
    ) -> None:
        self._path, self._state_path, self._first_bytes = path, state_path, first_bytes
        if not position and state_path is not None and state_path.exists():
            position = state_path.read_text(errors="replace")
        self._position = loads(position)
        self._file = -1
        # How often the file at the position was gone, so that lines may be missing.
        self.gaps = 0

    def read(self, most_lines: int = 1000) -> Batch:
        """The next lines, at most a megabyte of them; a last line without its end waits for it."""
        while True:
            if self._file < 0 and not self._open():
                return Batch([], self._position, more=False)
            self._notice_truncation()
            # Looked for before the last read: the writer has let go of this file if there are lines in another.
            successor = self._successor()
            lines, more = self._read_lines(most_lines, is_complete=successor is not None)
            if lines or more or successor is None or not self._begin(successor):
                return Batch(lines, self._position, more or (bool(lines) and successor is not None))

    def save(self, batch: Batch) -> None:
        """Keep the position in the state file: called once the lines are safe."""
        if self._state_path is None or batch.position is None:
            return
        fresh = self._state_path.with_name(f".{self._state_path.name}.fresh")
        with fresh.open("w") as file:
            file.write(batch.position.dumps())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._state_path)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> bool:
        """Open the file that was read last where it is now; False if there is no file at all."""
        last = self._position
        if last is None:
            return self._begin(self._path, at_most=self._first_bytes)
        found = self._find(last)
        if found is not None:
            return self._begin(found, last)
        self.gaps += last.offset > 0
        return any(self._begin(path) for path in [*self._rotated_since(last), self._path])

    def _begin(self, path: Path, last: Position | None = None, at_most: int = 0) -> bool:
        """Go on in this file, from its start or as far as it was read."""
        file, found = _opened(path)
        if file < 0 or found is None:
            return False
        self.close()
        self._file = file
        if last is not None:
            self._position = dataclasses.replace(last, device=found.st_dev, inode=found.st_ino)
            return True
        offset = max(found.st_size - at_most, 0) if at_most else 0
        head = os.pread(file, min(HEAD_BYTES, offset), 0)
        check = zlib.crc32(head)
        self._position = Position(
            found.st_dev, found.st_ino, offset, check, len(head), found.st_mtime_ns, skipping=offset > 0
        )
        return True

    def _find(self, last: Position) -> Path | None:
        """The file of this position: under its name, renamed, or a copy of it."""
        candidates = [self._path, *self._rotated()]
        copies = []
        for path in candidates:
            file, found = _opened(path)
            if found is None:
                continue
            is_same = found.st_size >= last.offset and _has_head(file, last)
            os.close(file)
            if is_same and (found.st_dev, found.st_ino) == (last.device, last.inode):
                return path
            if is_same and last.check_bytes:
                copies.append(path)
        return copies[-1] if copies else None

    def _notice_truncation(self) -> None:
        """A file that was emptied and written anew under us: what is missing of the old one stands in a copy, if at all."""
        last = self._position
        assert last is not None
        mine = os.fstat(self._file)
        if mine.st_size >= last.offset and _has_head(self._file, last):
            if not last.check_bytes:
                self._begin_earlier(last, mine)
            return
        copy = self._find(last)
        if copy is not None and self._begin(copy, last):
            return
        self.gaps += 1
        self._position = dataclasses.replace(last, offset=0, check=0, check_bytes=0, skipping=False)

    def _begin_earlier(self, last: Position, mine: os.stat_result) -> None:
        """Of a file of which nothing was read there may be copies that are older than what is in it now."""
        is_newest = _is_same(_status(self._path), mine)
        for path in self._rotated_since(last):
            found = _status(path)
            if found is not None and (is_newest or found.st_mtime_ns < mine.st_mtime_ns) and self._begin(path):
                return

    def _successor(self) -> Path | None:
        """The file to read after this one; None while this one is the log itself, or nothing is in the next one."""
        last = self._position
        assert last is not None
        newest = _status(self._path)
        mine = os.fstat(self._file)
        if _is_same(newest, mine):
            return None
        for path in self._rotated_since(dataclasses.replace(last, changed=mine.st_mtime_ns)):
            return path
        return self._path if newest is not None and newest.st_size else None

    def _read_lines(self, most_lines: int, *, is_complete: bool) -> tuple[list[bytes], bool]:
        last = self._position
        assert last is not None
        changed = os.fstat(self._file).st_mtime_ns
        data = os.pread(self._file, CHUNK_BYTES, last.offset)
        lines, used, skipping = _split(data, most_lines, last.skipping)
        is_end = len(data) < CHUNK_BYTES
        if is_complete and is_end and used < len(data) and len(lines) < most_lines:
            lines.append(data[used:])  # nobody will end it
            used = len(data)
        if used:
            self._position = self._checked(
                dataclasses.replace(last, offset=last.offset + used, changed=changed, skipping=skipping)
            )
        return lines, not is_end or (len(lines) >= most_lines and used < len(data))

    def _checked(self, position: Position) -> Position:
        if position.check_bytes == HEAD_BYTES:
            return position
        head = os.pread(self._file, min(HEAD_BYTES, position.offset), 0)
        return dataclasses.replace(position, check=zlib.crc32(head), check_bytes=len(head))

    def _rotated_since(self, last: Position) -> list[Path]:
        """Rotated files with lines that came after this one, the oldest first."""
        later = []
        for path in self._rotated():
            found = _status(path)
            is_other = found is not None and (found.st_dev, found.st_ino) != (last.device, last.inode)
            if found is not None and is_other and found.st_size and found.st_mtime_ns > last.changed:
                later.append(path)
        return later

    def _rotated(self) -> list[Path]:
        """Rotated files that can be read, the oldest first."""
        prefix = f"{self._path.name}."
        found = []
        with os.scandir(self._path.parent) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and not entry.name.endswith(PACKED):
                    status = _status(Path(entry.path))
                    if status is not None:
                        found.append((status.st_mtime_ns, entry.path))
        return [Path(path) for _, path in sorted(found)]


def _split(data: bytes, most_lines: int, skipping: bool) -> tuple[list[bytes], int, bool]:
    """Lines, how many bytes they took, and whether the rest of the last one is to be skipped."""
    lines: list[bytes] = []
    used = 0
    while used < len(data) and len(lines) < most_lines:
        end = data.find(b"\n", used)
        if end < 0:
            if skipping:
                return lines, len(data), True
            if len(data) - used <= LONGEST_LINE:
                break
            lines.append(data[used : used + LONGEST_LINE])
            return lines, len(data), True
        if not skipping and end > used:
            lines.append(data[used : min(end, used + LONGEST_LINE)].removesuffix(b"\r"))
        used, skipping = end + 1, False
    return lines, used, skipping


def _opened(path: Path) -> tuple[int, os.stat_result | None]:
    """A descriptor of a regular file and its status; (-1, None) where there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return -1, None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        return -1, None
    return file, found


def _status(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _is_same(one: os.stat_result | None, other: os.stat_result) -> bool:
    return one is not None and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _has_head(file: int, position: Position) -> bool:
    return zlib.crc32(os.pread(file, position.check_bytes, 0)) == position.check
