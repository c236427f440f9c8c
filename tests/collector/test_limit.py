"""How many lines may leave a node in a minute."""

import pytest

from collector.limit import Limiter


def test_more_than_the_limit_in_a_minute_is_dropped_and_counted() -> None:
    limiter = Limiter(per_minute=3)
    assert [limiter.admit("I", 60.0 + second) for second in range(5)] == [True, True, True, False, False]
    assert limiter.dropped == 2
    assert limiter.admit("I", 120.0)


@pytest.mark.parametrize("severity", ["F", "E", "W"])
def test_warnings_and_worse_always_go(severity: str) -> None:
    limiter = Limiter(per_minute=1)
    assert all(limiter.admit(severity, 60.0) for _ in range(100))
    assert limiter.admit("I", 60.0)  # and take nobody's place
    assert limiter.dropped == 0


def test_lines_of_an_outage_count_in_the_minute_they_were_written_in() -> None:
    limiter = Limiter(per_minute=10)
    assert all(limiter.admit("I", minute * 60.0 + line) for minute in range(60) for line in range(10))


def test_threads_that_write_out_of_order_get_no_second_minute() -> None:
    limiter = Limiter(per_minute=10)
    admitted = [limiter.admit("I", 120.0 - line % 2) for line in range(100)]
    assert sum(admitted) <= 11


def test_a_clock_that_is_set_back_does_not_silence_a_node() -> None:
    limiter = Limiter(per_minute=1)
    assert limiter.admit("I", 7200.0)
    assert limiter.admit("I", 60.0)
