"""`wap metrics`, `wap logs`, `wap slow-queries` and what a node does now, against the fake control plane."""

import json
import os
import signal
import subprocess
import sys

import pytest

from console.cli.failures import CommandError
from console.cli.measures import BLOCKS, curve, quantity, seconds_of
from console.fake import FakeControl
from tests.cli.conftest import INTERRUPTIBLE, Wap

CPU = "host.cpu.used_percent"


@pytest.fixture
def orders(wap: Wap) -> Wap:
    """With a cluster that has three members."""
    wap.ok("cluster", "create", "orders", "--yes", "--json")
    return wap


def test_the_catalogue_is_listed_where_no_metric_is_named(wap: Wap) -> None:
    shown = wap.ok("metrics").out
    line = next(line for line in shown.splitlines() if line.startswith(CPU))
    assert "percent" in line
    assert "gauge" in line
    names = [one["name"] for one in wap.ok("metrics", "--json").json()["metrics"]]
    assert CPU in names


def test_metrics_of_a_cluster_are_a_row_for_each_member(orders: Wap) -> None:
    lines = orders.ok("metrics", CPU, "--cluster", "orders", "--last", "6h").out.splitlines()
    assert "NEWEST" in lines[0]
    rows = [line for line in lines[1:] if CPU in line]
    assert [row.split()[0] for row in rows] == ["orders-rs0-0", "orders-rs0-1", "orders-rs0-2"]
    assert all(" %" in row for row in rows)
    assert any(block in rows[0] for block in BLOCKS)
    reply = orders.ok("metrics", CPU, "-c", "orders", "--json").json()
    assert len(reply["series"]) == 3


def test_metrics_of_one_node(orders: Wap) -> None:
    reply = orders.ok("metrics", CPU, "host.load.one_minute", "--node", "orders-rs0-1", "--json").json()
    assert {one["node_name"] for one in reply["series"]} == {"orders-rs0-1"}


def test_without_a_place_all_nodes_are_compared(orders: Wap) -> None:
    shown = orders.ok("metrics", CPU).out
    assert "MEDIAN" in shown
    assert shown.count("orders-rs0-") == 3
    found = orders.ok("metrics", CPU, "--json").json()["summaries"]
    assert len(found) == 3
    assert all(one["median"] <= one["p95"] <= one["maximum"] for one in found)


def test_what_is_no_metric_and_no_span(orders: Wap) -> None:
    answer = orders("metrics", "no.such", "-c", "orders")
    assert answer.exit_code == 2 or "INVALID_ARGUMENT" in answer.err
    answer = orders("metrics", CPU, "-c", "orders", "--last", "yesterday")
    assert answer.exit_code != 0
    assert "--last yesterday is no span" in answer.err
    assert orders("metrics", CPU, "--node", "nobody").exit_code == 3


def test_lines_are_shown_oldest_first_and_filtered(orders: Wap) -> None:
    lines = orders.ok("logs", "-c", "orders", "-n", "20").out.splitlines()
    assert len(lines) == 20
    times = [line[:23] for line in lines]
    assert times == sorted(times)
    only = orders.ok("logs", "-c", "orders", "--severity", "W", "--last", "1h").out.splitlines()
    assert only
    assert all(line.split()[2] in ("W", "E", "F") for line in only)
    reply = orders.ok("logs", "slow query", "--node", "orders-rs0-0", "-n", "3", "--json").json()
    assert len(reply["lines"]) == 3
    assert {one["node_name"] for one in reply["lines"]} == {"orders-rs0-0"}


def test_lines_are_followed_until_interrupted(orders: Wap) -> None:
    program = [sys.executable, "-c", INTERRUPTIBLE]
    arguments = ["logs", "-c", "orders", "--follow", "--last", "1s", "-o", "json"]
    environment = {**os.environ, "WAP_CONFIG": str(orders.config_file), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*program, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stdout is not None
        found = [json.loads(tail.stdout.readline()) for _ in range(3)]
        tail.send_signal(signal.SIGINT)
        _, told = tail.communicate(timeout=30)
    assert all(one["node_name"].startswith("orders-rs0-") for one in found)
    assert tail.returncode == 130, told
    assert "Traceback" not in told


def test_slow_queries_stand_with_the_index_that_would_help(orders: Wap) -> None:
    shown = orders.ok("slow-queries", "-c", "orders").out
    assert "shop.orders" in shown
    assert "An index would help shop.orders" in shown
    reply = orders.ok("slow-queries", "--node", "orders-rs0-0", "--limit", "1", "--json").json()
    assert len(reply["shapes"]) == 1
    assert orders("slow-queries", "--limit", "201").exit_code == 2


def test_the_only_cluster_is_meant_where_none_is_named(orders: Wap) -> None:
    assert "shop.orders" in orders.ok("slow-queries").out
    orders.ok("cluster", "create", "billing", "--yes", "--json")
    answer = orders("slow-queries")
    assert "not clear which cluster" in answer.err
    assert orders("metrics", CPU, "--node", "orders-rs0-0", "-c", "billing").exit_code == 3, "it is not one of these"


def test_what_a_node_does_is_listed_and_ended(orders: Wap, fake: FakeControl) -> None:
    reply = orders.ok("node", "operations", "orders-rs0-0", "--at-least", "1", "--json").json()
    number = next(one["id"] for one in reply["operations"] if one["killable"])
    assert f"{number} " in orders.ok("node", "operations", "orders-rs0-0").out
    assert orders("node", "kill", "orders-rs0-0", number).exit_code == 2  # nobody to ask
    orders.ok("node", "kill", "orders-rs0-0", number, "--yes")
    reply = orders.ok("node", "operations", "orders-rs0-0", "--json").json()
    assert number not in [one["id"] for one in reply["operations"]]


def test_spans_values_and_curves_as_text() -> None:
    assert [seconds_of(text, "--last") for text in ("90s", "15m", "6h", "7d", "1.5h", "2w")] == [
        90,
        900,
        21_600,
        604_800,
        5400,
        1_209_600,
    ]
    for text in ("", "h", "-1h", "0s", "1y", "1 hour ago"):
        with pytest.raises(CommandError):
            seconds_of(text, "--last")
    assert quantity(12.345, "percent") == "12.3 %"
    assert quantity(3.5 * 2**30, "bytes") == "3.5 GiB"
    assert quantity(2048, "bytes/s") == "2 KiB/s"
    assert quantity(1234, "1/s") == "1,234 /s"
    assert quantity(7, "") == "7"
    assert curve([1, None, 3], 3) == "▁ █"
    assert curve([], 3) == ""
    assert len(curve([float(number) for number in range(1000)])) == 40
