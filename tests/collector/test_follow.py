"""A log is read through rotation and restart: each line once, in order."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from collector import follow
from collector.follow import Follower


class Log:
    """A log with its writer: numbered lines, and each way in which logs are rotated."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "mongod.log"
        self.written: list[bytes] = []
        self._file = self.path.open("ab", buffering=0)
        self._rotations = 0
        # Files of one moment are told apart by their time of change, as those of a real log are.
        self._clock = 1_700_000_000_000_000_000
        self._tick()

    def write(self, count: int = 1, size: int = 40) -> None:
        for _ in range(count):
            line = b"%d " % len(self.written) + b"x" * size
            self.written.append(line)
            self._put(line + b"\n")

    def begin(self, text: bytes) -> None:
        """Write a line without its end."""
        self._put(text)

    def rename(self, *, late: int = 0) -> None:
        """As mongod does it on logRotate; with `late` lines as logrotate does: a new empty file before the signal."""
        self._rotations += 1
        self.path.rename(self.path.with_name(f"mongod.log.{self._rotations:03}"))
        if late:
            self.path.touch()
            self.write(late)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self._tick()

    def copy_and_truncate(self) -> None:
        """As logrotate does it with copytruncate."""
        self._rotations += 1
        copy = self.path.with_name(f"mongod.log.{self._rotations:03}")
        shutil.copyfile(self.path, copy)
        self._tick()
        os.utime(copy, ns=(self._clock, self._clock))
        self._file.truncate(0)
        self._tick()

    def replace(self) -> None:
        """Delete the log and make it anew, where the file system uses the same inode again."""
        inode = self.path.stat().st_ino
        self._file.close()
        self.path.unlink()
        self._file = self.path.open("ab", buffering=0)
        self.reuses_inodes = self.path.stat().st_ino == inode

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._tick()

    def _tick(self) -> None:
        self._clock += 1_000_000_000
        os.utime(self._file.fileno(), ns=(self._clock, self._clock))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def everything(follower: Follower, most_lines: int = 1000) -> list[bytes]:
    lines: list[bytes] = []
    while True:
        batch = follower.read(most_lines)
        lines += batch.lines
        if not batch.more:
            return lines


def after_restart(follower: Follower, log: Log) -> Follower:
    """A follower that knows nothing but where the other one was."""
    position = follower.read(0).position
    follower.close()
    return Follower(log.path, position=position.dumps() if position else "")


def test_lines_as_they_come(log: Log) -> None:
    follower = Follower(log.path)
    assert everything(follower) == []
    log.write(3)
    assert everything(follower) == log.written
    log.write(2)
    assert everything(follower) == log.written[3:]


def test_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "mongod.log")
    assert follower.read() == follow.Batch([], None, more=False)
    log = Log(tmp_path)
    log.write()
    assert everything(follower) == log.written


def test_a_partial_last_line_waits(log: Log) -> None:
    follower = Follower(log.path)
    log.begin(b"half a ")
    assert everything(follower) == []
    follower = after_restart(follower, log)
    assert everything(follower) == []
    log.begin(b"line\r\n")
    assert everything(follower) == [b"half a line"]


def test_reading_is_bounded(log: Log) -> None:
    log.write(3000, size=1000)
    follower = Follower(log.path)
    first = follower.read()
    assert (len(first.lines), first.more) == (1000, True)
    assert len(follower.read(5000).lines) < 1100  # a megabyte
    assert (
        first.lines + everything(Follower(log.path, position=first.position.dumps() if first.position else ""))
        == log.written
    )


def test_what_was_not_saved_is_read_again(log: Log, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    follower = Follower(log.path, state)
    log.write(3)
    follower.save(follower.read())
    log.write(3)
    follower.read()  # and dies
    assert everything(Follower(log.path, state)) == log.written[3:]


@pytest.mark.parametrize("position", ["", "x", "{}", "[]", '{"device":1}', "null", '{"offset":-1}'])
def test_a_position_that_makes_no_sense_is_none(log: Log, position: str) -> None:
    log.write(3)
    assert everything(Follower(log.path, position=position)) == log.written
    assert follow.loads(position) is None


def test_a_negative_offset_is_no_position(log: Log) -> None:
    log.write(3)
    position = Follower(log.path).read().position
    assert position is not None
    assert follow.loads(position.dumps()) == position
    assert follow.loads(position.dumps().replace(f'"offset": {position.offset}', '"offset": -5')) is None


def test_a_long_line_is_cut_and_the_next_is_whole(log: Log) -> None:
    follower = Follower(log.path)
    log.begin(b"long" * 1_000_000)
    lines = everything(follower)
    assert [len(line) for line in lines] == [follow.LONGEST_LINE]
    follower = after_restart(follower, log)
    log.begin(b"end of long\n")
    log.write()
    assert everything(follower) == log.written


def test_of_a_huge_log_that_was_never_read_the_newest_part(log: Log) -> None:
    log.write(100)
    lines = everything(Follower(log.path, first_bytes=500))
    assert 5 < len(lines) < 20
    assert lines == log.written[-len(lines) :]


ROTATIONS: dict[str, Callable[[Log], None]] = {
    "renamed": Log.rename,
    "renamed, and written to for a while": lambda log: log.rename(late=3),
    "copied and truncated": Log.copy_and_truncate,
}


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS.keys())
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("after", [0, 2])
def test_rotation_loses_and_doubles_nothing(
    log: Log, rotation: Callable[[Log], None], is_restarted: bool, times: int, after: int
) -> None:
    follower = Follower(log.path)
    log.write(5)
    read = everything(follower)
    for _ in range(times):
        log.write(5)  # not read before the rotation
        rotation(log)
        log.write(after)
        if is_restarted:
            follower = after_restart(follower, log)
    read += everything(follower)
    log.write(2)
    read += everything(follower)
    assert read == log.written
    assert follower.gaps == 0


def test_a_reader_that_knows_the_name_only_loses_lines(log: Log) -> None:
    """The control of the test above."""
    log.write(5)
    read, offset = log.path.read_bytes().splitlines(), log.path.stat().st_size
    log.write(5)
    log.rename()
    log.write(20)
    read += log.path.read_bytes()[offset:].splitlines()
    assert read != log.written


def test_a_line_that_was_never_ended_before_the_rotation_is_given_out(log: Log) -> None:
    follower = Follower(log.path)
    log.write()
    log.begin(b"mongod died he")
    assert everything(follower) == log.written
    log.rename()
    assert everything(follower) == []  # the writer may still be there
    log.write()
    assert everything(follower) == [b"mongod died he", log.written[-1]]


def test_an_inode_that_is_used_again_is_another_file(log: Log) -> None:
    follower = Follower(log.path)
    log.write(5)
    position = follower.read().position
    assert position is not None
    follower.close()
    log.replace()
    if not log.reuses_inodes:
        pytest.skip("this file system does not use inodes again at once")
    log.written.clear()
    log.write(20, size=41)
    follower = Follower(log.path, position=position.dumps())
    assert everything(follower) == log.written
    assert follower.gaps == 1
    # The control: without the checksum the old place is taken for one in the new file.
    blind = position.dumps().replace(f'"check_bytes": {position.check_bytes}', '"check_bytes": 0')
    blind = blind.replace(f'"check": {position.check}', '"check": 0')
    assert everything(Follower(log.path, position=blind)) != log.written


def test_a_rotated_file_that_is_gone_is_a_gap(log: Log) -> None:
    follower = Follower(log.path)
    log.write(5)
    follower.read()
    log.write(5)
    log.rename()
    log.write(5)
    follower = after_restart(follower, log)
    (log.path.parent / "mongod.log.001").unlink()
    assert everything(follower) == log.written[10:]
    assert follower.gaps == 1


def test_packed_files_and_files_of_others_are_not_read(log: Log) -> None:
    follower = Follower(log.path)
    log.write(2)
    assert everything(follower) == log.written
    for name in ("mongod.log.000.gz", "mongod-other.log", "mongod.logs"):
        (log.path.parent / name).write_bytes(b"not this\n")
    (log.path.parent / "mongod.log.directory").mkdir()
    os.mkfifo(log.path.parent / "mongod.log.fifo")
    log.rename()
    log.write()
    assert everything(follower) == log.written[2:]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_line_comes_once(tmp_path: Path, seed: int) -> None:
    """Random writes, rotations, deaths: the lines and the position are kept together or not at all."""
    dice, log = random.Random(seed), Log(tmp_path)
    kept: list[bytes] = []
    follower = Follower(log.path)
    first = follower.read().position
    assert first is not None
    position = first.dumps()
    for _ in range(150):
        match dice.randrange(9):
            case 0 | 1 | 2:
                log.write(dice.randrange(1, 8), size=dice.choice([0, 30, 700]))
            case 3:
                log.rename(late=dice.choice([0, 0, 2]))
            case 4 if dice.random() < 0.5 and log.path.stat().st_size:
                log.copy_and_truncate()
            case 5:
                follower.read(dice.randrange(1, 5))  # dies before the lines are kept
                follower.close()
                follower = Follower(log.path, position=position)
            case _:
                batch = follower.read(dice.randrange(1, 10))
                kept += batch.lines
                position = batch.position.dumps() if batch.position else position
    kept += everything(follower)
    assert kept == log.written
    assert follower.gaps == 0
