"""Rates from counters: none is better than a wrong one."""

import math

from hypothesis import given
from hypothesis import strategies as st

from collector.rates import Rates, known, percent, quotient


def test_a_rate_is_the_growth_per_second() -> None:
    rates = Rates()
    assert rates.per_second(100.0, {"reads": 5}) == {}
    assert rates.per_second(110.0, {"reads": 25}) == {"reads": 2.0}
    assert rates.per_second(111.0, {"reads": 25}) == {"reads": 0.0}


def test_a_counter_that_went_back_has_no_rate_and_the_others_keep_theirs() -> None:
    rates = Rates()
    rates.per_second(0.0, {"reads": 100, "writes": 100})
    assert rates.per_second(10.0, {"reads": 3, "writes": 200}) == {"writes": 10.0}
    assert rates.per_second(20.0, {"reads": 13, "writes": 200}) == {"reads": 1.0, "writes": 0.0}


def test_after_another_boot_everything_is_measured_anew() -> None:
    rates = Rates()
    rates.per_second(0.0, {"reads": 100}, boot=1)
    # More than before: only the boot tells that this is no growth.
    assert rates.per_second(10.0, {"reads": 5000}, boot=2) == {}
    assert rates.per_second(20.0, {"reads": 5010}, boot=2) == {"reads": 1.0}


def test_control_the_same_counters_without_a_boot_are_a_spike() -> None:
    rates = Rates()
    rates.per_second(0.0, {"reads": 100})
    assert rates.per_second(10.0, {"reads": 5000}) == {"reads": 490.0}


def test_a_new_counter_waits_for_its_second_tick() -> None:
    rates = Rates()
    rates.per_second(0.0, {})
    assert rates.per_second(1.0, {"reads": 1}) == {}
    assert rates.per_second(2.0, {"reads": 2}) == {"reads": 1.0}


def test_a_clock_that_stands_still_or_goes_back_gives_no_rate() -> None:
    rates = Rates()
    rates.per_second(10.0, {"reads": 1})
    assert rates.per_second(10.0, {"reads": 5}) == {}
    assert rates.per_second(4.0, {"reads": 9}) == {}
    assert rates.per_second(5.0, {"reads": 10}) == {"reads": 1.0}


def test_forgetting_measures_anew() -> None:
    rates = Rates()
    rates.per_second(1.0, {"reads": 1})
    rates.forget()
    assert rates.per_second(2.0, {"reads": 100}) == {}


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=True, allow_infinity=True)),
            st.integers(0, 2),
        )
    )
)
def test_whatever_comes_in_no_rate_is_negative_or_not_a_number(
    ticks: list[tuple[float, dict[str, float], int]],
) -> None:
    rates = Rates()
    for time_s, counters, boot in ticks:
        found = known(rates.per_second(time_s, counters, boot))
        assert all(math.isfinite(rate) and rate >= 0 for rate in found.values())


def test_what_has_no_whole_has_no_share() -> None:
    assert quotient(1.0, 0.0) is None
    assert quotient(None, 2.0) is None
    assert percent(1.0, 0.0) is None
    assert percent(3.0, 2.0) == 100.0
    assert known({"a": None, "b": math.nan, "c": math.inf, "d": 0}) == {"d": 0.0}
