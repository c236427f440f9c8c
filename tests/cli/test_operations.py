"""Following and steering operations."""

import json
import os
import signal
import subprocess
import sys

from wap.control.v1.operation_pb2 import OPERATION_STATE_RUNNING, OPERATION_STATE_SUCCEEDED, STEP_STATE_RUNNING

from console.fake import FakeControl
from tests.cli.conftest import INTERRUPTIBLE, Wap
from tests.waiting import wait_until


def begin_held(wap: Wap, fake: FakeControl, step: str = "mongod:rs0-1") -> str:
    """An operation that stands at this step."""
    fake.call(lambda: fake.engine.hold(step))
    operation_id: str = wap.ok("cluster", "create", "orders", "--yes", "--no-wait", "--json").json()["id"]

    def reached() -> bool:
        steps = fake.world.operations[operation_id].steps
        return any(one.plan.name == step and one.state == STEP_STATE_RUNNING for one in steps)

    wait_until(lambda: fake.call(reached), within=10)
    return operation_id


def test_a_running_operation_shows_what_it_waits_for(wap: Wap, fake: FakeControl) -> None:
    operation_id = begin_held(wap, fake)
    shown = wap.ok("operation", "show", operation_id).out
    assert "waits for mongod to answer" in shown
    row = next(line for line in wap.ok("operation", "list").out.splitlines() if operation_id in line)
    assert "running" in row


def test_watch_gives_programs_one_object_per_change(wap: Wap, fake: FakeControl) -> None:
    operation_id = begin_held(wap, fake)
    fake.call(fake.engine.release)
    answer = wap.ok("operation", "watch", operation_id, "-o", "json")
    states = [json.loads(line)["state"] for line in answer.out.splitlines()]
    assert states[-1] == "OPERATION_STATE_SUCCEEDED"


def test_one_operation_at_a_time(wap: Wap, fake: FakeControl) -> None:
    operation_id = begin_held(wap, fake)
    answer = wap("cluster", "delete", "orders", "--confirm", "orders")
    assert answer.exit_code == 5
    assert "CLUSTER_BUSY" in answer.err
    assert operation_id in answer.err


def test_cancel_undoes_what_was_made(wap: Wap, fake: FakeControl) -> None:
    operation_id = begin_held(wap, fake)
    answer = wap.ok("operation", "cancel", operation_id, "--yes", "--wait")
    assert "cancelled" in answer.out
    assert "Undo: Terminate instance" in wap.ok("operation", "show", operation_id).out
    assert wap("cluster", "show", "orders").exit_code == 3
    again = wap("operation", "cancel", operation_id, "--yes")
    assert (again.exit_code, "OPERATION_FINISHED" in again.err) == (5, True)


def test_a_failed_operation_exits_with_1_and_can_be_retried(wap: Wap, fake: FakeControl) -> None:
    fake.call(lambda: fake.engine.fail("instance:rs0-1"))
    failed = wap("cluster", "create", "orders", "--yes")
    assert failed.exit_code == 1
    assert "CLOUD_CAPACITY" in failed.err
    assert "wap operation retry" in failed.err
    operation_id = wap.ok("operation", "list", "--json").json()["operations"][0]["id"]
    assert wap("cluster", "delete", "orders", "--confirm", "orders").exit_code == 5
    wap.ok("operation", "retry", operation_id)
    assert wap.ok("cluster", "show", "orders", "--json").json()["state"] == "CLUSTER_STATE_AVAILABLE"
    assert wap("operation", "retry", operation_id).exit_code == 5


def test_abandoning_frees_the_cluster(wap: Wap, fake: FakeControl) -> None:
    fake.call(lambda: fake.engine.fail("network"))
    assert wap("cluster", "create", "orders", "--yes", "--json").exit_code == 1
    operation_id = wap.ok("operation", "list", "--json").json()["operations"][0]["id"]
    assert wap("operation", "abandon", operation_id).exit_code == 2  # nobody to ask
    wap.ok("operation", "abandon", operation_id, "--yes")
    wap.ok("cluster", "delete", "orders", "--confirm", "orders")


def test_an_interrupted_watch_leaves_the_operation_running(wap: Wap, fake: FakeControl) -> None:
    operation_id = begin_held(wap, fake)
    program = [sys.executable, "-c", INTERRUPTIBLE, "operation", "watch", operation_id]
    environment = {**os.environ, "WAP_CONFIG": str(wap.config_file), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stderr is not None
        seen = [watch.stderr.readline()]  # it watches now
        watch.send_signal(signal.SIGINT)
        _, rest = watch.communicate(timeout=30)
    told = "".join(seen) + rest
    assert watch.returncode == 130, told
    assert f"the operation {operation_id} goes on" in told
    assert "Traceback" not in told
    assert fake.call(lambda: fake.world.operations[operation_id].state) == OPERATION_STATE_RUNNING
    fake.call(fake.engine.release)
    wait_until(
        lambda: fake.call(lambda: fake.world.operations[operation_id].state) == OPERATION_STATE_SUCCEEDED, within=10
    )


def test_lists_are_read_page_by_page(wap: Wap) -> None:
    for number in range(3):
        wap.ok("cluster", "create", f"orders-{number}", "--yes", "--json")
    assert len(wap.ok("operation", "list", "--json", "--limit", "2").json()["operations"]) == 2
    assert len(wap.ok("operation", "list", "--json", "--limit", "1000").json()["operations"]) == 3
