"""When a rule is met, when an alert of it is over, which rule holds where, and what is sent."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.catalog import CATALOG
from controlplane.alerting.built_in import BUILT_IN
from controlplane.domain.alert import (
    CONDITIONS,
    OPEN,
    TRANSITIONS,
    AlertState,
    Comparison,
    Place,
    Rule,
    RuleBook,
    Sending,
    Severity,
    Silence,
    check_acknowledgement,
    check_rule,
    check_silence,
    clear_line,
    is_due,
    is_silenced,
    judge,
)
from controlplane.domain.failure import FailureCode, Refused

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
RULE = Rule(
    "ar-1", "Disk", Place(), "host.disk.used_percent", Comparison.ABOVE, 90.0, MINUTE, 3, Severity.CRITICAL, 0.1
)
NODE = Place("pr-1", "cl-1", "nd-1")


def met(*values: float, rule: Rule = RULE) -> tuple[bool, bool]:
    """Whether an alert would fire, and whether an open one would resolve."""
    judged = judge(rule, values)
    assert judged is not None
    return judged.firing, judged.clear


def test_enough_samples_beyond_the_threshold_fire() -> None:
    assert met(91, 80, 92, 80) == (False, True)
    assert met(91, 80, 92, 93) == (True, False)
    assert met(90, 90, 90) == (False, False), "the threshold itself is not beyond it"


def test_nothing_is_known_without_samples() -> None:
    assert judge(RULE, []) is None


def test_below_is_the_other_way_round() -> None:
    oplog = dataclasses.replace(RULE, comparison=Comparison.BELOW, threshold=100.0)
    assert met(99, 98, 97, rule=oplog) == (True, False)
    assert met(105, 105, 105, rule=oplog) == (False, False), "not yet 10 % on the good side"
    assert met(111, 111, 111, rule=oplog) == (False, True)


def swings(rule: Rule) -> int:
    """How many alerts a value makes that swings around the threshold for 100 rounds."""
    window, fired, is_open = [0.0] * 6, 0, False
    for number in range(100):
        window = [*window[1:], 91.0 if number // 7 % 2 else 89.0]
        firing, clear = met(*window, rule=rule)
        if firing and not is_open:
            fired, is_open = fired + 1, True
        elif clear:
            is_open = False
    return fired


def test_a_value_that_swings_around_the_threshold_makes_one_alert() -> None:
    assert swings(RULE) == 1


def test_control_without_hysteresis_it_makes_many() -> None:
    assert swings(dataclasses.replace(RULE, hysteresis=0.0)) > 5


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50),
    st.floats(-1e9, 1e9),
    st.floats(0, 1),
    st.integers(1, 10),
    st.sampled_from(Comparison),
)
def test_what_fires_is_never_clear_at_the_same_time(
    values: list[float], threshold: float, hysteresis: float, hits: int, comparison: Comparison
) -> None:
    rule = dataclasses.replace(RULE, threshold=threshold, hysteresis=hysteresis, hits=hits, comparison=comparison)
    firing, clear = met(*values, rule=rule)
    assert not (firing and clear)


def test_the_clear_line_lies_on_the_good_side_also_of_a_negative_threshold() -> None:
    below_zero = dataclasses.replace(RULE, threshold=-10.0)
    assert clear_line(below_zero) == -11.0
    assert clear_line(dataclasses.replace(below_zero, comparison=Comparison.BELOW)) == -9.0


def named(name: str, place: Place, threshold: float = 1.0, *, built_in: bool = False) -> Rule:
    return dataclasses.replace(
        RULE, id=f"{name}/{place}", name=name, place=place, threshold=threshold, built_in=built_in
    )


def test_the_lowest_level_that_has_a_rule_of_the_name_counts() -> None:
    project, cluster = Place("pr-1"), Place("pr-1", "cl-1")
    book = RuleBook(
        [
            named("Disk", NODE, 5),
            named("Disk", Place(), 2),
            named("Disk", Place(), 1, built_in=True),
            named("Disk", cluster, 4),
            named("Disk", project, 3),
            named("CPU", Place("pr-2"), 9),
        ]
    )
    elsewhere = [Place("pr-2"), project, cluster, Place("pr-1", "cl-1", "nd-2"), NODE, Place("pr-1", "cl-2", "nd-3")]
    assert [book.at(place)["Disk"].threshold for place in elsewhere] == [2, 3, 4, 4, 5, 3]
    assert set(book.at(Place("pr-2"))) == {"Disk", "CPU"}
    assert set(book.at(NODE)) == {"Disk"}


def test_places_lie_in_each_other() -> None:
    assert Place().covers(NODE)
    assert Place("pr-1", "cl-1").covers(NODE)
    assert not Place("pr-1", "cl-2").covers(NODE)
    assert not NODE.covers(Place("pr-1", "cl-1"))
    assert [place.level for place in (Place(), Place("p"), Place("p", "c"), NODE)] == [0, 1, 2, 3]


def test_a_silence_counts_in_its_place_for_its_rule_and_its_time() -> None:
    silence = Silence(Place("pr-1", "cl-1"), "Disk", NOW, NOW + HOUR)
    assert is_silenced([silence], NODE, "Disk", NOW)
    assert not is_silenced([silence], NODE, "CPU", NOW)
    assert not is_silenced([silence], Place("pr-1", "cl-2", "nd-9"), "Disk", NOW)
    assert not is_silenced([silence], NODE, "Disk", NOW - MINUTE)
    assert not is_silenced([silence], NODE, "Disk", NOW + HOUR)
    assert is_silenced([dataclasses.replace(silence, rule_name="")], NODE, "CPU", NOW)


def test_what_is_sent_and_when() -> None:
    fresh = Sending(AlertState.FIRING, False, None, HOUR)
    assert is_due(fresh, NOW)
    assert not is_due(dataclasses.replace(fresh, silenced=True), NOW)
    assert not is_due(dataclasses.replace(fresh, state=AlertState.ACKNOWLEDGED), NOW)
    sent = dataclasses.replace(fresh, last_sent_at=NOW)
    assert not is_due(sent, NOW + HOUR - MINUTE)
    assert is_due(sent, NOW + HOUR)
    assert not is_due(dataclasses.replace(sent, repeat=None), NOW + 1000 * HOUR)


def test_a_resolved_alert_stays_so() -> None:
    assert TRANSITIONS[AlertState.RESOLVED] == frozenset()
    assert set(TRANSITIONS) == set(AlertState)
    assert {state for state, following in TRANSITIONS.items() if following} == OPEN


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("rule.name", {"name": ""}),
        ("rule.name", {"name": "x" * 65}),
        ("rule.name", {"name": "two\nlines"}),
        ("rule.name", {"name": " Disk"}),
        ("rule.metric", {"metric": "host.disk.colour"}),
        ("rule.metric", {"metric": "no_primary", "place": NODE}),
        ("rule.threshold", {"threshold": float("nan")}),
        ("rule.threshold", {"threshold": float("inf")}),
        ("rule.window", {"window": -MINUTE}),
        ("rule.window", {"window": HOUR + MINUTE}),
        ("rule.hits", {"hits": 0}),
        ("rule.hits", {"hits": 10**6}),
        ("rule.hysteresis", {"hysteresis": 1.1}),
        ("rule.hysteresis", {"hysteresis": float("nan")}),
        ("rule.repeat_interval", {"repeat": timedelta(seconds=1)}),
        ("rule.advice", {"advice": "x" * 501}),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(field: str, change: dict[str, object]) -> None:
    check_rule(RULE, CATALOG)
    with pytest.raises(Refused) as refused:
        check_rule(dataclasses.replace(RULE, **change), CATALOG)  # type: ignore[arg-type]
    assert refused.value.details.field == field


@pytest.mark.parametrize("rule", BUILT_IN, ids=lambda rule: rule.name)
def test_what_comes_with_wap_is_acceptable_and_says_what_to_do(rule: Rule) -> None:
    check_rule(rule, CATALOG)
    assert rule.built_in
    assert rule.id.startswith("built-in/")
    assert rule.repeat is not None
    assert len(rule.advice) > 40


def test_names_of_built_in_rules_are_unique_and_every_condition_has_one() -> None:
    assert len({rule.name for rule in BUILT_IN}) == len(BUILT_IN)
    assert {rule.metric for rule in BUILT_IN} >= set(CONDITIONS)


@pytest.mark.parametrize(
    ("check", "field"),
    [
        (lambda: check_acknowledgement(AlertState.FIRING, NOW, NOW), "until_time"),
        (lambda: check_acknowledgement(AlertState.FIRING, NOW + timedelta(days=31), NOW), "until_time"),
        (lambda: check_silence(Silence(NODE, "", NOW + HOUR, NOW + MINUTE), NOW), "silence.end_time"),
        (lambda: check_silence(Silence(NODE, "", NOW - HOUR, NOW - MINUTE), NOW), "silence.end_time"),
        (lambda: check_silence(Silence(NODE, "", NOW, NOW + timedelta(days=366)), NOW), "silence.end_time"),
    ],
)
def test_times_that_make_no_sense_are_refused(check: Callable[[], object], field: str) -> None:
    with pytest.raises(Refused) as refused:
        check()
    assert refused.value.details.field == field


def test_only_an_open_alert_is_acknowledged() -> None:
    check_acknowledgement(AlertState.ACKNOWLEDGED, NOW + HOUR, NOW)
    with pytest.raises(Refused) as refused:
        check_acknowledgement(AlertState.RESOLVED, NOW + HOUR, NOW)
    assert refused.value.code is FailureCode.OPERATION_FINISHED
