"""Live lines: everybody gets what they asked for, and a slow follower holds up nobody."""

import asyncio
from datetime import UTC, datetime

import pytest

from controlplane.telemetry.port import LogLine
from controlplane.telemetry.tail import MOST_CHARACTERS, MOST_LINES, Matching, Tail


def line(sequence: int, *, node: str = "n1", text: str = "hello", severity: str = "I") -> LogLine:
    return LogLine(
        node, "c1", sequence, datetime(2026, 1, 1, tzinfo=UTC), "REPL", severity, 42, text, attributes='{"Db":"Shop"}'
    )


async def test_followers_get_the_lines_they_asked_for() -> None:
    tail = Tail()
    with tail.subscribe(Matching(severities=("F", "E", "W"))) as bad, tail.subscribe(Matching()) as all_lines:
        tail.publish([line(1), line(2, severity="W")])
        tail.publish([line(3)])
        assert [one.sequence for one in (await anext(bad)).lines] == [2]
        assert [one.sequence for one in (await anext(all_lines)).lines] == [1, 2, 3]
        assert tail.followers == 2
    assert tail.followers == 0


@pytest.mark.parametrize(
    ("matching", "wanted"),
    [
        (Matching(), True),
        (Matching(node_ids=frozenset({"n1"})), True),
        (Matching(node_ids=frozenset()), False),
        (Matching(cluster_ids=frozenset({"c2"})), False),
        (Matching(text="HELL"), True),
        (Matching(text="shop"), True),
        (Matching(text="%"), False),
        (Matching(component="NETWORK"), False),
        (Matching(message_id=42), True),
        (Matching(message_id=43), False),
        (Matching(only_slow_queries=True), False),
    ],
)
def test_what_matches(matching: Matching, wanted: bool) -> None:
    assert matching(line(1)) is wanted


async def test_a_slow_follower_misses_the_oldest_and_is_told_how_many() -> None:
    tail = Tail(most_waiting=3)
    with tail.subscribe(Matching()) as slow:
        tail.publish([line(sequence) for sequence in range(10)])
        batch = await anext(slow)
        assert [one.sequence for one in batch.lines] == [7, 8, 9]
        assert batch.skipped == 7
        tail.publish([line(10)])
        assert (await anext(slow)).skipped == 0


async def test_a_message_is_bounded_by_lines_and_by_characters() -> None:
    tail = Tail()
    with tail.subscribe(Matching()) as follower:
        tail.publish([line(sequence) for sequence in range(MOST_LINES + 1)])
        assert [len((await anext(follower)).lines) for _ in range(2)] == [MOST_LINES, 1]
        tail.publish([line(sequence, text="x" * MOST_CHARACTERS) for sequence in range(2)])
        assert [len((await anext(follower)).lines) for _ in range(2)] == [1, 1]


async def test_closing_the_tail_ends_those_who_wait() -> None:
    tail = Tail()
    follower = tail.subscribe(Matching())

    async def follow() -> int:
        return sum([len(batch.lines) async for batch in follower])

    following = asyncio.create_task(follow())
    tail.publish([line(1)])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tail.close()
    assert await asyncio.wait_for(following, 5) in (0, 1)
    assert tail.followers == 0
