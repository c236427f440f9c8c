"""The outbox: nothing leaves it unwritten and uncounted."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from controlplane.telemetry.outbox import FULL, REFUSED, SHUT_DOWN, Outbox
from controlplane.telemetry.port import StoreUnavailable
from tests.waiting import eventually


class Shelf:
    """A store of numbers that can be away, hang, or refuse some of them."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.calls = 0
        self.away = False
        self.hangs = False
        self.refuses: set[int] = set()

    async def write(self, items: Sequence[int]) -> None:
        self.calls += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise StoreUnavailable("away")
        if self.refuses.intersection(items):
            raise ValueError("cannot be stored")
        self.kept += items


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def outbox(shelf: Shelf) -> AsyncIterator[Outbox[int]]:
    box = Outbox(shelf.write, 100, batch_items=40, every_s=0, pause_s=0.01, longest_pause_s=0.05)
    box.start()
    yield box
    await box.close(0)


async def test_items_are_written_in_order_and_in_batches(outbox: Outbox[int], shelf: Shelf) -> None:
    outbox.put(range(90))
    assert outbox.waiting == 90
    assert await outbox.flush(5)
    assert shelf.kept == list(range(90))
    assert shelf.calls == 3
    assert (outbox.waiting, outbox.written, outbox.lost) == (0, 90, {})


async def test_a_store_that_is_away_is_caught_up(outbox: Outbox[int], shelf: Shelf) -> None:
    shelf.away = True
    outbox.put(range(60))
    await eventually(lambda: shelf.calls >= 3, within=15)
    outbox.put(range(60, 100))
    assert outbox.last_failure == "away"
    assert outbox.waiting == 100
    shelf.away = False
    assert await outbox.flush(5)
    assert shelf.kept == list(range(100))
    assert (outbox.last_failure, outbox.lost) == ("", {})


async def test_the_oldest_goes_and_is_counted_when_the_room_is_used_up(outbox: Outbox[int], shelf: Shelf) -> None:
    shelf.away = True
    outbox.put(range(60))
    await eventually(lambda: outbox.last_failure, within=15)
    outbox.put(range(60, 130))
    assert outbox.room == 0
    shelf.away = False
    assert await outbox.flush(5)
    assert shelf.kept == list(range(30, 130))
    assert outbox.lost == {FULL: 30}


async def test_bytes_are_bounded_too(shelf: Shelf) -> None:
    box = Outbox(shelf.write, 1000, most_bytes=50, size_of=lambda item: item, every_s=0)
    box.put([10, 20, 30])
    assert box.lost == {FULL: 1}
    assert box.waiting == 2
    assert box.room == 0
    box.start()
    assert await box.flush(5)
    assert box.room == 1000
    await box.close()


async def test_one_item_the_store_refuses_takes_no_other_with_it(outbox: Outbox[int], shelf: Shelf) -> None:
    shelf.refuses = {7, 33}
    outbox.put(range(40))
    assert await outbox.flush(5)
    assert sorted(shelf.kept) == [item for item in range(40) if item not in (7, 33)]
    assert outbox.lost == {REFUSED: 2}
    assert "cannot be stored" in outbox.last_failure


async def test_a_store_that_refuses_everything_is_not_asked_item_by_item_for_ever(shelf: Shelf) -> None:
    box = Outbox(shelf.write, 100_000, every_s=0)
    shelf.refuses = set(range(10_000))
    box.start()
    box.put(range(10_000))
    assert await box.flush(10)
    assert box.lost == {REFUSED: 10_000}
    assert shelf.calls < 500
    await box.close()


async def test_a_write_that_hangs_is_tried_again(shelf: Shelf) -> None:
    box = Outbox(shelf.write, every_s=0, patience_s=0.02, pause_s=0.01)
    shelf.hangs = True
    box.start()
    box.put([1, 2])
    await eventually(lambda: "no answer" in box.last_failure, within=15)
    shelf.hangs = False
    assert await box.flush(5)
    assert shelf.kept == [1, 2]
    await box.close()


async def test_a_batch_gathers_for_a_tick_and_a_flush_hurries_it(shelf: Shelf) -> None:
    box = Outbox(shelf.write, every_s=3600)
    box.start()
    for item in range(5):
        box.put([item])
        await asyncio.sleep(0)
    assert shelf.calls == 0
    assert await box.flush(5)
    assert (shelf.calls, shelf.kept) == (1, [0, 1, 2, 3, 4])
    await box.close()


async def test_closing_writes_what_waits(shelf: Shelf) -> None:
    box = Outbox(shelf.write, every_s=3600)
    box.start()
    box.put([1, 2, 3])
    await box.close(5)
    assert shelf.kept == [1, 2, 3]
    assert box.lost == {}


async def test_closing_asks_a_store_once_more_and_counts_what_it_leaves(shelf: Shelf) -> None:
    box = Outbox(shelf.write, every_s=0, pause_s=3600, longest_pause_s=3600)
    shelf.away = True
    box.start()
    box.put([1, 2, 3])
    await eventually(lambda: box.last_failure, within=15)
    await box.close(0.2)
    assert shelf.calls == 2
    assert box.lost == {SHUT_DOWN: 3}
    box.put([4])
    assert box.lost == {SHUT_DOWN: 4}
    assert box.waiting == 0
