"""What EC2 does behind its API: it makes processes and disks be what the account says.

After every change, and once a second, `settle` compares both: a running instance without a main process is booted (as
systemd would restart the agent), a stopped or terminated one with processes is ended, volumes are shown, withdrawn and
deleted. Because it looks at processes and not at its own memory, a restarted sandbox adopts what still runs.
"""

import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.sandbox import loops, processes
from scripts.sandbox.account import LIVE, Account, set_state, state_of, user_data_of
from scripts.sandbox.disks import Disks
from scripts.sandbox.machine import Machine

TICK_SECONDS = 1.0
STOP_GRACE = 30.0


class Hypervisor:
    """Machines and disks of one account. `changed` is called when it has moved an instance to another state."""

    def __init__(self, account: Account, state: Path, volumes: str, changed: Callable[[], None]) -> None:
        self._account, self._directory, self._changed = account, state / "instances", changed
        self._directory.mkdir(parents=True, exist_ok=True)
        self.disks = Disks(state / "volumes", volumes)
        self._machines: dict[str, Machine] = {}
        self._ending: dict[str, threading.Thread] = {}
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def start(self) -> None:
        """Adopt what runs, end what no account knows, boot what should run, and keep it so."""
        marked = processes.all_marked()
        live = {item.id for item in self._account.live()}
        for home in self._directory.iterdir():
            if home.name not in live:  # from a sandbox that was killed before it could save
                self._scrap(home.name)
            elif home.name in marked:
                machine = self._machine(home.name)
                if not machine.adopt(marked[home.name]):
                    del self._machines[home.name]
        running = [item for item in self._account.live() if state_of(item) == "running"]
        self.disks.release_unused({volume for item in running for volume in self._account.data_volumes_of(item)})
        self.settle()
        self._ticker.start()

    def stop(self, *, leave_instances: bool = False) -> None:
        """Stop to look after machines, and end them all in order unless they are to be left."""
        self._stop.set()
        self._ticker.join()
        if not leave_instances:
            with self._account.lock:
                for home in self._directory.iterdir():
                    self._end_later(home.name, lambda: None)
        for thread in list(self._ending.values()):
            thread.join()

    def _tick(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            self.settle()

    def settle(self) -> None:
        """Make processes and disks be what the account says."""
        with self._account.lock:
            for instance in self._account.instances():
                match state_of(instance):
                    case "running" | "pending":
                        self._keep_up(instance)
                    case "stopping":
                        self.shut_down(instance)
                    case "terminated" | "shutting-down":
                        self._scrap(instance.id)
            for volume_id in self.disks.known() - self._account.volumes().keys() - set(self._account.ec2.snapshots):
                self.disks.delete(volume_id)

    def root_of(self, instance_id: str) -> Path:
        """Directory that stands for "/" of the instance."""
        return self._directory / instance_id / "root"

    def _machine(self, instance_id: str) -> Machine:
        return self._machines.setdefault(instance_id, Machine(instance_id, self._directory / instance_id))

    def _keep_up(self, instance: Any) -> None:
        if instance.id in self._ending or self._stop.is_set():
            return
        for volume_id, volume in self._account.data_volumes_of(instance).items():
            self.disks.present(volume_id, int(volume.size), self.root_of(instance.id))
        machine = self._machine(instance.id)
        if not machine.is_up() and machine.may_boot():
            machine.boot(user_data_of(instance))

    def shut_down(self, instance: Any) -> None:
        """End the machine in order; it is "stopping" until nothing of it runs, then "stopped"."""

        def stopped() -> None:
            if state_of(instance) == "stopping":
                set_state(instance, "stopped")

        set_state(instance, "stopping")
        self._end_later(instance.id, stopped)

    def reboot(self, instance: Any) -> None:
        """End the machine in order; as it is still "running", it is booted again."""
        self._end_later(instance.id, lambda: None)

    def _end_later(self, instance_id: str, then: Callable[[], None]) -> None:
        if instance_id in self._ending:
            return

        def work() -> None:
            processes.end(instance_id, grace=STOP_GRACE)
            with self._account.lock:
                self.disks.withdraw_all(self.root_of(instance_id))
                self._machines.pop(instance_id, None)
                del self._ending[instance_id]
                then()
                self._changed()
                if not self._stop.is_set():
                    self.settle()

        self._ending[instance_id] = threading.Thread(target=work, name=f"end {instance_id}", daemon=True)
        self._ending[instance_id].start()

    def _scrap(self, instance_id: str) -> None:
        """Nothing of a terminated instance is left, but for its data volumes."""
        home = self._directory / instance_id
        if not home.exists():
            return
        processes.end(instance_id, grace=0)
        self.disks.withdraw_all(self.root_of(instance_id))
        self._machines.pop(instance_id, None)
        if not loops.mounted_below(home):  # else its removal would empty a volume; the next tick tries again
            shutil.rmtree(home, ignore_errors=True)

    def snapshot(self, volume_id: str, snapshot_id: str) -> None:
        """A crash-consistent copy: the instance stands still while its volume is copied."""
        volume = self._account.volumes()[volume_id]
        owner = volume.attachment.instance.id if volume.attachment else ""
        if owner:
            processes.send(owner, signal.SIGSTOP)
        try:
            self.disks.copy(volume_id, snapshot_id)
        finally:
            if owner:
                processes.send(owner, signal.SIGCONT)

    def processes(self) -> dict[str, list[int]]:
        """Pids by instance id."""
        marked = processes.all_marked()
        return {item.id: marked[item.id] for item in self._account.instances() if item.id in marked}

    def report(self) -> list[dict[str, Any]]:
        """Every live instance: state, address, pids, and the directory that stands for its "/"."""
        pids = self.processes()
        return [
            {
                "id": item.id,
                "state": state_of(item),
                "type": item.instance_type,
                "address": item.private_ip,
                "pids": pids.get(item.id, []),
                "root": str(self.root_of(item.id)),
            }
            for item in self._account.instances()
            if state_of(item) in LIVE
        ]
