"""Logs as clients ask for them: search page by page, live lines, slow queries with the index that would help."""

import asyncio
from datetime import datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1 import log_pb2 as pb

from console.client import WapError
from controlplane.domain.access import Grant, Role
from controlplane.store import access
from controlplane.store.database import Database
from controlplane.store.tables import Token
from controlplane.telemetry.port import LogLine, SlowQuery
from tests.api.world import START, World, populate, running
from tests.waiting import eventually

NODE, OTHER, FOREIGN = "orders-rs0-0", "orders-rs0-1", "secrets-rs0-0"


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


def line(world: World, node: str, sequence: int, text: str = "", **more: object) -> LogLine:
    fields = {
        "node_id": world.ids[node],
        "cluster_id": world.ids[node.partition("-")[0]],
        "sequence": sequence,
        "time": START - timedelta(seconds=1000 - sequence),
        "component": "REPL",
        "severity": "I",
        "message_id": 4615611,
        "text": text or f"line {sequence} of {node}",
        **more,
    }
    return LogLine(**fields)  # type: ignore[arg-type]


async def search(world: World, as_: str = "viewer-a", **fields: object) -> pb.SearchLogsResponse:
    own = {"start_time", "end_time", "page_size", "page_token"}
    request = pb.SearchLogsRequest(**{name: value for name, value in fields.items() if name in own})  # type: ignore[arg-type]
    request.filter.CopyFrom(pb.LogFilter(**{name: value for name, value in fields.items() if name not in own}))  # type: ignore[arg-type]
    reply: pb.SearchLogsResponse = await world.call("LogService/SearchLogs", request, as_)
    return reply


async def texts(world: World, as_: str = "viewer-a", **fields: object) -> list[str]:
    return [one.text for one in (await search(world, as_, **fields)).lines]


async def some_lines(world: World) -> None:
    await world.measured.logs.write(
        [
            line(world, NODE, 1, "starting up", severity="I", component="CONTROL"),
            line(world, NODE, 2, "Election succeeded", severity="W"),
            line(world, NODE, 3, "cannot write", severity="E", component="STORAGE", message_id=22435),
            line(world, NODE, 4, "plan", severity="D1", attributes='{"ns": "shop.Orders"}'),
            line(world, OTHER, 5, "from the other"),
            line(world, FOREIGN, 6, "a secret line"),
        ]
    )


async def test_lines_come_newest_first_under_the_names_of_their_nodes(world: World) -> None:
    await some_lines(world)
    reply = await search(world, cluster_id=world.ids["orders"])
    assert [(one.text, one.node_name) for one in reply.lines] == [
        ("from the other", "orders-rs0-1"),
        ("plan", "orders-rs0-0"),
        ("cannot write", "orders-rs0-0"),
        ("Election succeeded", "orders-rs0-0"),
        ("starting up", "orders-rs0-0"),
    ]
    assert not reply.next_page_token


async def test_filters(world: World) -> None:
    await some_lines(world)
    assert await texts(world, text="ELECTION") == ["Election succeeded"]
    assert await texts(world, text="shop.orders") == ["plan"], "attributes are searched too"
    assert await texts(world, component="STORAGE") == ["cannot write"]
    assert await texts(world, message_id=22435) == ["cannot write"]
    assert await texts(world, minimum_severity="W") == ["cannot write", "Election succeeded"]
    assert len(await texts(world, minimum_severity="I")) == 4
    assert await texts(world, node_id=world.ids[OTHER]) == ["from the other"]
    assert await texts(world, end_time=stamp(START - timedelta(seconds=998))) == ["starting up"]


async def test_nobody_sees_a_line_of_another_project(world: World) -> None:
    await some_lines(world)
    assert await texts(world, "viewer-b") == ["a secret line"]
    assert len(await texts(world, "viewer-a")) == 5
    assert len(await texts(world, "root")) == 6
    assert await texts(world, "viewer-a", project_id=world.ids["aa"], cluster_id=world.ids["orders"]) != []
    assert await texts(world, "root", project_id=world.ids["bb"], cluster_id=world.ids["orders"]) == []
    assert await texts(world, "viewer-a", project_id=world.ids["bb"], node_id=world.ids[NODE]) == []


async def test_pages_hold_each_line_once_also_while_new_ones_come_in(world: World) -> None:
    await world.measured.logs.write([line(world, NODE, number) for number in range(1, 26)])
    seen, token = [], ""
    while True:
        reply = await search(world, page_size=10, page_token=token)
        seen += [one.text for one in reply.lines]
        world.clock.advance(60)
        await world.measured.logs.write([line(world, NODE, 100 + len(seen), "new", time=world.clock.now())])
        token = reply.next_page_token
        if not token:
            break
    assert seen == [f"line {number} of {NODE}" for number in range(25, 0, -1)]


async def test_a_page_token_is_good_for_its_search_alone(world: World) -> None:
    await world.measured.logs.write([line(world, NODE, number) for number in range(1, 26)])
    token = (await search(world, page_size=10)).next_page_token
    request = pb.SearchLogsRequest(page_token=token, filter=pb.LogFilter(text="other"))
    error = await world.refusal("LogService/SearchLogs", request, "viewer-a")
    assert error.field == "page_token"


async def test_very_long_lines_fit_into_a_message(world: World) -> None:
    await world.measured.logs.write(
        [line(world, NODE, number, "ü" * 16_000, attributes='"' + "y" * 30_000 + '"') for number in range(1, 301)]
    )
    reply = await search(world, page_size=1000)
    assert 0 < len(reply.lines) < 300
    assert reply.ByteSize() < 4 * 2**20
    assert reply.next_page_token


async def test_a_store_that_is_away_is_told(world: World) -> None:
    world.measured.logs.away = True
    error = await world.refusal("LogService/SearchLogs", pb.SearchLogsRequest(), "viewer-a")
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


async def test_live_lines_pass_the_filter_and_the_rights(world: World) -> None:
    request = pb.TailLogsRequest(filter=pb.LogFilter(minimum_severity="W"))
    async with world.watch("LogService/TailLogs", request, "viewer-a") as tail:
        assert not (await tail.next()).lines  # it follows from here on
        world.measured.tail.publish(
            [
                line(world, NODE, 1, "fine"),
                line(world, FOREIGN, 2, "foreign", severity="F"),
                line(world, NODE, 3, "bad", severity="E"),
            ]
        )
        reply = await tail.next()
        assert [(one.text, one.node_name) for one in reply.lines] == [("bad", "orders-rs0-0")]


async def test_what_was_too_fast_is_counted(world: World) -> None:
    async with world.watch("LogService/TailLogs", pb.TailLogsRequest(), "viewer-a") as tail:
        await tail.next()
        world.measured.tail.publish([line(world, NODE, number) for number in range(1, 10_001)])
        replies = [await tail.next()]
        while len(replies[-1].lines) and replies[-1].lines[-1].text != f"line 10000 of {NODE}":
            replies.append(await tail.next())
    shown, skipped = sum(len(one.lines) for one in replies), sum(one.skipped for one in replies)
    assert skipped > 0
    assert shown + skipped == 10_000


async def test_who_loses_the_right_hears_nothing_more(world: World) -> None:
    async with world.watch("LogService/TailLogs", pb.TailLogsRequest(), "viewer-a") as tail:
        await tail.next()
        await world.database.write(
            lambda tx: access.revoke(tx, tx.get_one(Token, world.ids["session:viewer-a"]), world.clock.now())
        )
        with pytest.raises(WapError) as ended:
            await tail.next()
        assert ended.value.reason == "UNAUTHENTICATED"
        await eventually(lambda: world.measured.tail.followers == 0, within=15)


async def test_a_cluster_that_is_made_meanwhile_is_followed_too(world: World) -> None:
    async with world.watch("LogService/TailLogs", pb.TailLogsRequest(), "viewer-a") as tail:
        await tail.next()
        await world.cluster("aa", "young")
        nodes_seen = asyncio.create_task(tail.next())
        while not nodes_seen.done():
            world.measured.tail.publish([line(world, "young-rs0-0", 1, "hello")])
            await asyncio.wait({nodes_seen}, timeout=0.2)
        assert nodes_seen.result().lines[0].text == "hello"


async def test_lines_that_another_control_plane_hears_are_followed_through_the_store(sqlite: Database) -> None:
    async with running(sqlite, alone=False) as world:
        await populate(world)
        async with world.watch("LogService/TailLogs", pb.TailLogsRequest(), "viewer-a") as tail:
            await tail.next()
            here = line(world, NODE, 1, "here", time=START + timedelta(seconds=1))
            there = line(world, OTHER, 1, "there", time=START + timedelta(seconds=2))
            world.measured.tail.publish([here])
            await world.measured.logs.write([here, there])
            found: list[str] = []
            while len(found) < 2:
                found += [one.text for one in (await tail.next()).lines]
    assert found == ["here", "there"], "each once"


def slow(predicate: str, millis: int, **more: object) -> SlowQuery:
    fields = {
        "namespace": "shop.orders",
        "operation": "find",
        "predicate_shape": predicate,
        "sort_shape": "",
        "plan_summary": "COLLSCAN",
        "duration_millis": millis,
        "keys_examined": 0,
        "docs_examined": 10_000,
        "docs_returned": 1,
        "collection_scan": True,
        "sorted_in_memory": False,
        **more,
    }
    return SlowQuery(**fields)  # type: ignore[arg-type]


async def test_slow_queries_are_grouped_and_the_worst_stand_first(world: World) -> None:
    by_status, by_user = '{"status": "?string"}', '{"user": "?objectId"}'
    queries = [slow(by_status, 100 * number) for number in range(1, 11)] + [slow(by_user, 50)]
    queries.append(slow(by_user, 9000, namespace="shop.users"))
    lines = [line(world, NODE, number, message_id=51803, slow_query=one) for number, one in enumerate(queries, 1)]
    await world.measured.logs.write(
        [*lines, line(world, NODE, 99), line(world, FOREIGN, 1, slow_query=slow("{}", 10**6))]
    )
    request = pb.ListSlowQueriesRequest(cluster_id=world.ids["orders"])
    reply = await world.call("LogService/ListSlowQueries", request, "viewer-a")
    assert [(one.namespace, one.predicate_shape, one.count) for one in reply.shapes] == [
        ("shop.users", by_user, 1),
        ("shop.orders", by_status, 10),
        ("shop.orders", by_user, 1),
    ]
    assert not reply.partial
    shape = reply.shapes[1]
    assert (shape.p50.ToMilliseconds(), shape.p95.ToMilliseconds(), shape.total.ToMilliseconds()) == (500, 1000, 5500)
    assert (shape.docs_examined, shape.docs_returned, shape.collection_scans) == (100_000, 10, 10)
    assert "status" in shape.advice.keys
    assert shape.advice.reason
    request = pb.ListSlowQueriesRequest(node_id=world.ids[NODE], namespace="shop.orders", limit=1)
    reply = await world.call("LogService/ListSlowQueries", request, "viewer-a")
    assert [one.predicate_shape for one in reply.shapes] == [by_status]


async def test_a_role_in_all_projects_follows_all(world: World) -> None:
    await world.person("everywhere", Grant("", Role.VIEWER))
    await some_lines(world)
    assert len(await texts(world, "everywhere")) == 6
