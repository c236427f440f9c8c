"""The series behind charts: what is drawn, what is marked, and who may read them."""

from typing import Any

import pytest
from wap.control.v1.access_pb2 import Grant
from wap.control.v1.metric_pb2 import Point
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_VIEWER

from collector.catalog import CATALOG
from console.fake.curves import CURVES, STORAGE_METRICS
from console.pages import fleet, metrics, node, realtime, topics
from console.parts.charts import CHARTS, RANGES, ChartBoard
from console.parts.sparkline import NOT_KNOWN, newest, sparkline
from console.series import _failovers, _Grid, _together, current
from tests.console.conftest import Console, Person
from tests.console.test_pages import make_cluster

STATE = "replica_set.state"


async def series(console: Console, person: Person | None = None, **asked: Any) -> tuple[int, dict[str, Any]]:
    """What a browser gets; by somebody who is logged in, or by nobody."""
    browser = person.user.http_client if person is not None else console.browser()
    answer = await browser.get("/series", params=asked)
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()


async def test_all_members_are_on_one_chart_with_gaps_and_marks(console: Console) -> None:
    cluster = await make_cluster(console)
    person = await console.person()
    asked = {"cluster": cluster.id, "prefix": "orders-", "charts": "cpu,operations,lag", "seconds": 3600}
    status, body = await series(console, person, **asked)
    assert status == 200
    assert body["members"] == ["rs0-0", "rs0-1", "rs0-2"]
    assert [line["name"] for line in body["charts"]["cpu"]] == body["members"]
    assert [line["name"] for line in body["charts"]["operations"]][:3] == ["Query", "Update", "Insert"]
    lengths = {len(line["values"]) for lines in body["charts"].values() for line in lines}
    assert len(lengths) == 1
    assert max(lengths) <= 1000
    gaps = [line["values"].count(None) for line in body["charts"]["cpu"]]
    assert sorted(gap > 20 for gap in gaps) == [False, False, True]  # one member measured nothing for five minutes
    names = [event["name"] for event in body["events"]]
    assert names[-1] == "Create cluster"
    assert [name for name in names if name.endswith("primary")] == ["rs0-0 primary"]


@pytest.mark.parametrize("seconds", RANGES)
async def test_longer_times_bring_least_and_most_and_no_more_points(console: Console, seconds: int) -> None:
    cluster = await make_cluster(console)
    person = await console.person()
    _, body = await series(console, person, cluster=cluster.id, charts="cpu", seconds=seconds)
    line = body["charts"]["cpu"][0]
    assert len(line["values"]) <= 1000
    assert ("high" in line) is (seconds > 3600)
    if "high" in line:
        known = [three for three in zip(line["low"], line["values"], line["high"], strict=True) if three[1] is not None]
        assert all(low <= average <= high for low, average, high in known)


async def test_charts_of_a_large_cluster_stay_on_one_grid(console: Console) -> None:
    """Its metrics take two requests, and the control plane makes the steps of the larger one longer."""
    cluster = await make_cluster(console)
    person = await console.person()
    keys = ",".join(
        ("operations", "cpu", "memory", "disk-used", "iops", "network", "latency", "queue", "tickets", "lag")
    )
    asked = {"cluster": cluster.id, "charts": keys, "seconds": 3600}
    _, fine = await series(console, person, **asked)
    console.fake.metrics.most_answer = 20_000
    _, coarse = await series(console, person, **asked)
    assert (fine["step"], coarse["step"]) == (10, 20)
    assert len({len(line["values"]) for lines in coarse["charts"].values() for line in lines}) == 1


async def test_a_node_has_its_own_charts(console: Console) -> None:
    await make_cluster(console)
    person = await console.person()
    one = next(iter(console.fake.world.nodes.values()))
    _, body = await series(console, person, node=one.id, cluster=one.cluster_id, charts="cpu-kinds", seconds=600)
    assert body["members"] == [one.name]
    assert [line["name"] for line in body["charts"]["cpu-kinds"]] == ["User", "System", "Waiting for disk", "Steal"]


async def test_nobody_reads_series_without_a_session(console: Console) -> None:
    cluster = await make_cluster(console)
    status, body = await series(console, cluster=cluster.id, charts="cpu", seconds=3600)
    assert (status, "charts" in body) == (401, False)
    person = await console.person()
    status, body = await series(console, person, cluster=cluster.id, charts="cpu", seconds=3600)
    assert (status, "charts" in body) == (200, True)  # the control: the session is what opens them


async def test_series_are_read_with_the_users_own_rights(console: Console) -> None:
    cluster = await make_cluster(console)
    other = console.fake.world.add_project("other")
    console.fake.world.add_user("eve", "password", [Grant(project_id=other.id, role=ACCESS_ROLE_VIEWER)])
    eve = await console.person("eve")
    status, body = await series(console, eve, cluster=cluster.id, charts="cpu", seconds=3600)
    assert status == 404
    assert body == {"message": "There is no such cluster, or you may not see it."}


@pytest.mark.parametrize(
    ("charts", "seconds"), [("nothing", "3600"), ("", "3600"), ("cpu", "5"), ("cpu", "all"), ("cpu", "-3600")]
)
async def test_other_charts_and_times_are_refused(console: Console, charts: str, seconds: str) -> None:
    person = await console.person()
    status, _ = await series(console, person, cluster="cl-x", charts=charts, seconds=seconds)
    assert status == 400


async def test_a_control_plane_that_is_away_is_told(console: Console) -> None:
    cluster = await make_cluster(console)
    person = await console.person()
    await console.fake.stop()
    status, body = await series(console, person, cluster=cluster.id, charts="cpu", seconds=3600)
    assert status == 503
    assert "cannot be reached" in body["message"]


def test_every_chart_is_made_of_metrics_that_are_measured() -> None:
    used = {metric for chart in CHARTS.values() for metric in chart.metrics}
    used |= {one.metric for one in fleet.RANKINGS} | set(node.SIZES) | {topics.CPU, *topics.OPCOUNTERS}
    assert used <= set(CATALOG)
    assert set(CURVES) | set(STORAGE_METRICS) <= set(CATALOG)  # nor does the fake invent any


def test_pages_name_charts_that_there_are() -> None:
    keys = [key for _, part in (*metrics.BOARDS, *node.BOARDS) for key in part]
    assert {*keys, *node.FIRST, *realtime.OF_CLUSTER, *realtime.OF_NODE} <= set(CHARTS)


def test_the_metrics_of_a_live_board_fit_into_one_stream() -> None:
    for keys in (realtime.OF_CLUSTER, realtime.OF_NODE, node.FIRST):
        assert len({metric for key in keys for metric in CHARTS[key].metrics}) <= 20


def test_sums_of_members_leave_gaps_where_nobody_measured() -> None:
    one, other = [Point(average=2), Point(), Point()], [Point(average=4), Point(average=5), Point()]
    together = _together([one, other], mean=False)
    assert [point.average if point.HasField("average") else None for point in together] == [6, 5, None]
    assert _together([one, other], mean=True)[0].average == 3  # shares and latencies have no sum


def states(*values: float | None) -> list[Point]:
    """Points of replica_set.state."""
    return [Point() if value is None else Point(average=value, minimum=value, maximum=value) for value in values]


class Tens(_Grid):
    """Steps of ten seconds from zero."""

    def __init__(self) -> None:
        self.start, self.step = 0.0, 10.0


MEMBERS = {"a": "rs0-0", "b": "rs0-1"}


def test_a_failover_is_marked_where_another_member_leads() -> None:
    events = _failovers({"a": states(1, 1, 2, 2), "b": states(2, 2, 2, 1)}, MEMBERS, Tens())
    assert events == [{"at": 30.0, "name": "rs0-1 primary"}]


def test_a_gap_is_no_failover() -> None:
    assert _failovers({"a": states(1, None, 1), "b": states(2, 2, 2)}, MEMBERS, Tens()) == []


def test_within_a_coarse_step_two_members_may_have_led() -> None:
    both = [Point(average=1.5, minimum=1, maximum=2)]
    events = _failovers({"a": states(1) + both + states(2), "b": states(2) + both + states(1)}, MEMBERS, Tens())
    assert events == [{"at": 20.0, "name": "rs0-1 primary"}]


def test_live_values_are_those_of_the_lines() -> None:
    latest = {("host.cpu.used_percent", "a"): 12.3456, ("mongod.opcounters.query_per_second", "a"): 3.0}
    latest["mongod.opcounters.query_per_second", "b"] = 4.0
    assert current(CHARTS["cpu"], MEMBERS, latest) == {"rs0-0": 12.35, "rs0-1": None}
    assert current(CHARTS["operations"], MEMBERS, latest)["Query"] == 7.0
    assert current(CHARTS["operations"], MEMBERS, latest)["Insert"] is None


async def test_a_live_board_streams_while_it_is_live(console: Console) -> None:
    cluster = await make_cluster(console)
    person = await console.person()
    await person.open(f"/clusters/{cluster.id}")
    await person.sees("Healthy")
    session = console.sessions.owner_of(person.page.id)
    assert session is not None
    before = len(session.feeds)
    board = next(one for one in person.page.elements.values() if isinstance(one, ChartBoard))
    await tell(board, "live")
    assert (board.is_live, len(session.feeds)) == (True, before + 1)
    await tell(board, "rest")
    assert (board.is_live, len(session.feeds)) == (False, before)


async def tell(board: ChartBoard, what: str) -> None:
    """What the board's script says when a time range is chosen."""
    listener = next(one for one in board._event_listeners.values() if one.type == what)
    assert listener.handler is not None
    await listener.handler()


def test_a_sparkline_leaves_gaps_open() -> None:
    drawn = sparkline([1.0, 2.0, None, 4.0], "Operations")
    assert drawn.count("<polyline") == 2
    assert "now 4" in drawn
    assert sparkline([None, None], "Operations") == NOT_KNOWN == newest([])
