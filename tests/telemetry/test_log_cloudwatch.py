"""CloudWatch Logs beyond the port: AWS's limits, its ways of saying no, and what is written once only."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.config import Config
from botocore.stub import ANY, Stubber
from mypy_boto3_logs import CloudWatchLogsClient

from controlplane.telemetry import cloudwatch_events as events
from controlplane.telemetry.cloudwatch_logs import REJECTED, TOO_NEW, TOO_OLD, CloudWatchLogStore
from controlplane.telemetry.port import LogLine, LogQuery, StoreUnavailable
from scripts.sandbox import Sandbox

NOW = datetime.now(UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def client_at(endpoint: str) -> CloudWatchLogsClient:
    return boto3.client(
        "logs",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox"), volumes="directory") as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> CloudWatchLogsClient:
    return client_at(sandbox.endpoint)


def line(sequence: int, *, node: str = "n1", ago: timedelta = HOUR, **fields: object) -> LogLine:
    made = LogLine(node, "c1", sequence, NOW - ago + timedelta(milliseconds=sequence), "REPL", "I", 21, "hello")
    return replace(made, **fields)  # type: ignore[arg-type]


def ask(**fields: object) -> LogQuery:
    return replace(LogQuery(["n1", "n2"], NOW - 30 * DAY, NOW + DAY), **fields)  # type: ignore[arg-type]


def test_a_batch_is_within_what_one_request_takes() -> None:
    many = [events.event(line(number)) for number in range(25_000)]
    spread = [events.event(line(number, ago=number * 5 * HOUR)) for number in range(60)]
    big = [events.event(line(number, text="ü" * 60_000)) for number in range(40)]
    for given in (many, spread, big, many + spread + big):
        taken = list(events.batches(given))
        assert sorted(each for batch in taken for each in batch) == sorted(given)
        for batch in taken:
            times = [each.timestamp for each in batch]
            assert times == sorted(times)
            assert len(batch) <= 10_000
            assert times[-1] - times[0] < 24 * 3600 * 1000
            assert sum(len(each.message.encode()) + 26 for each in batch) <= 1_048_576
    assert len(list(events.batches(many))) < 10


def test_a_line_that_is_too_long_is_cut_and_says_so() -> None:
    made = events.event(line(1, text="x" * 300_000, attributes='{"a":1}'))
    assert made.size < events.MOST_EVENT_BYTES
    found = events.line("n1", made.message)
    assert found is not None
    assert found.text.endswith(events.CUT_MARK)
    assert found.attributes == ""


def test_attributes_can_be_looked_into() -> None:
    message = json.loads(events.event(line(1, attributes='{"ns":"shop.orders"}')).message)
    assert message["attributes"]["ns"] == "shop.orders"
    odd = line(2, attributes='{ "ns": 1.0 }')
    assert events.line("n1", events.event(odd).message) == odd


@pytest.mark.parametrize("message", ["", "hello", "[]", "{}", '{"cluster":1}', "null", '"x"'])
def test_events_of_others_are_passed_over(message: str) -> None:
    assert events.line("n1", message) is None


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({}, ""),
        ({"severities": ("F", "E", "W")}, '"upto=W "'),
        ({"severities": ("W",)}, ""),
        ({"component": "REPL"}, '"component=REPL "'),
        ({"component": 'x" ?"'}, ""),
        ({"message_id": 5, "component": "REPL"}, '"id=5 "'),
        ({"only_slow_queries": True}, '"slow=1"'),
    ],
)
def test_patterns_narrow_down_and_hold_no_quote_of_a_caller(wanted: dict[str, object], pattern: str) -> None:
    assert events.pattern(ask(**wanted)) == pattern


async def test_lines_that_cloudwatch_does_not_take_are_counted_and_the_rest_is_stored(
    client: CloudWatchLogsClient,
) -> None:
    store = CloudWatchLogStore("too-old", client=client)
    await store.write([line(1), line(2, ago=15 * DAY), line(3, ago=-3 * HOUR), line(4, ago=13 * DAY)])
    assert store.lost == {TOO_OLD: 1, TOO_NEW: 1}
    assert [each.sequence for each in (await store.search(ask())).lines] == [1, 4]
    await store.close()


async def test_a_group_we_make_keeps_lines_as_long_as_asked_and_one_that_is_there_is_left_alone(
    client: CloudWatchLogsClient,
) -> None:
    client.create_log_group(logGroupName="retention-theirs")
    for group in ("retention-ours", "retention-theirs"):
        store = CloudWatchLogStore(group, keep_days=20, client=client)
        await store.write([line(1)])
        await store.close()
    found = client.describe_log_groups(logGroupNamePrefix="retention-")["logGroups"]
    assert {each["logGroupName"]: each.get("retentionInDays") for each in found} == {
        "retention-ours": 30,
        "retention-theirs": None,
    }


async def test_a_search_through_many_lines_takes_smaller_windows(client: CloudWatchLogsClient) -> None:
    store = CloudWatchLogStore("dense", client=client, search_seconds=0, most_in_window=500)
    await store.write([line(number, ago=HOUR - number * timedelta(milliseconds=50)) for number in range(1_500)])
    query, found, pages = ask(start=NOW - 2 * HOUR, limit=400), list[int](), 0
    while True:
        page = await store.search(query)
        pages += 1
        found += [each.sequence for each in page.lines]
        if not page.after:
            break
        query = replace(query, after=page.after)
    assert found == list(range(1_499, -1, -1))
    assert pages >= 4
    await store.close()


async def test_a_service_that_cannot_be_reached_is_unavailable() -> None:
    store = CloudWatchLogStore("g", client=client_at("http://127.0.0.1:9"))
    with pytest.raises(StoreUnavailable):
        await store.write([line(1)])
    with pytest.raises(StoreUnavailable):
        await store.search(ask())
    await store.close()


async def test_throttling_is_unavailable_and_a_bad_request_is_refused() -> None:
    client = client_at("http://127.0.0.1:9")
    store = CloudWatchLogStore("g", client=client)
    with Stubber(client) as aws:
        aws.add_client_error("put_log_events", "ThrottlingException")
        with pytest.raises(StoreUnavailable, match="Throttling"):
            await store.write([line(1)])
        aws.add_client_error("put_log_events", "AccessDeniedException")
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            await store.write([line(1)])
        aws.add_client_error("put_log_events", "InvalidParameterException")
        with pytest.raises(ValueError, match="refuses"):
            await store.write([line(1)])
        aws.add_response("put_log_events", {"rejectedLogEventsInfo": {"tooOldLogEventEndIndex": 1}})
        await store.write([line(1), line(2)])
    assert store.lost == {REJECTED: 1}
    await store.close()


async def test_what_was_sent_before_a_failure_is_not_sent_again() -> None:
    client = client_at("http://127.0.0.1:9")
    store = CloudWatchLogStore("g", client=client)
    yesterday = line(1, ago=2 * DAY)
    with Stubber(client) as aws:
        aws.add_response("put_log_events", {})
        aws.add_client_error("put_log_events", "ServiceUnavailableException")
        with pytest.raises(StoreUnavailable):
            await store.write([line(2), yesterday])
        only = [{"timestamp": events.millis(line(2).time), "message": ANY}]
        aws.add_response("put_log_events", {}, {"logGroupName": "g", "logStreamName": "n1", "logEvents": only})
        await store.write([line(2), yesterday])
        aws.assert_no_pending_responses()
    await store.close()


async def test_nodes_without_a_stream_are_left_out_of_the_request() -> None:
    """AWS refuses a whole request that names a stream which is not there; the sandbox does not."""
    client = client_at("http://127.0.0.1:9")
    store = CloudWatchLogStore("g", client=client)
    with Stubber(client) as aws:
        aws.add_client_error("filter_log_events", "ResourceNotFoundException")
        aws.add_response("describe_log_streams", {"logStreams": [{"logStreamName": "n2"}, {"logStreamName": "n9"}]})
        made = {"logStreamName": "n2", "message": events.event(line(7, node="n2")).message}
        aws.add_response(
            "filter_log_events",
            {"events": [made]},
            {"logGroupName": "g", "logStreamNames": ["n2"], "startTime": ANY, "endTime": ANY},
        )
        aws.add_response(
            "filter_log_events",
            {"events": []},
            {"logGroupName": "g", "logStreamNames": ["n2"], "startTime": ANY, "endTime": ANY},
        )
        page = await store.search(ask(start=NOW - HOUR - timedelta(minutes=9), end=NOW - HOUR + timedelta(minutes=1)))
        aws.assert_no_pending_responses()
    assert [each.sequence for each in page.lines] == [7]
    await store.close()
