"""The catalogue: names that say their unit, and samplers that keep to it."""

import re

from collector import catalog
from collector.catalog import CATALOG, Kind

UNITS = {"bytes", "bytes/s", "bytes/h", "1/s", "percent", "ms", "ms/s", "seconds", ""}


def test_every_metric_has_a_group_a_known_unit_and_a_help() -> None:
    for name, metric in CATALOG.items():
        assert metric.name == name
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+){1,2}", name), name
        assert metric.group == name.split(".")[0]
        assert metric.unit in UNITS, name
        assert metric.help, name


def test_what_is_per_second_is_a_rate_and_says_so() -> None:
    for metric in CATALOG.values():
        assert (metric.kind is Kind.RATE) == metric.name.endswith("_per_second") == metric.unit.endswith("/s"), metric


def test_the_samplers_share_the_catalogue_out_among_themselves() -> None:
    assert {*catalog.NODE, *catalog.COLLECTION} == set(CATALOG)
    assert len(catalog.NODE) + len(catalog.COLLECTION) == len(CATALOG)
