"""One booted instance: its main process, which runs the user data, and when it may be booted again."""

import os
import subprocess
import time
from pathlib import Path

from scripts.sandbox import processes

RESPAWN_SECONDS = (1.0, 5.0)
# After so long a life the next pause is the shortest again.
STEADY_SECONDS = 60.0


class Machine:
    """The processes of one instance, in its own directory: user-data, console.log, pid, and root, which stands for /."""

    def __init__(self, instance_id: str, home: Path) -> None:
        self._id, self._home = instance_id, home
        self._main: subprocess.Popen[bytes] | None = None
        self._adopted_pid = 0
        self._boots, self._booted_at = 0, 0.0

    def adopt(self, pids: list[int]) -> bool:
        """Take over what an earlier sandbox booted; False when its main process is gone."""
        file = self._home / "pid"
        pid = int(file.read_text()) if file.exists() else 0
        self._adopted_pid, self._boots, self._booted_at = pid, 1, time.monotonic()
        return pid in pids

    def is_up(self) -> bool:
        """Whether the main process lives."""
        if self._main is not None:
            return self._main.poll() is None
        # Not just any process: the number may have been given to another one.
        return bool(self._adopted_pid) and self._adopted_pid in processes.of_instance(self._id)

    def may_boot(self) -> bool:
        """Not before a growing pause since the last boot, as a service manager would."""
        lived = time.monotonic() - self._booted_at
        if lived > STEADY_SECONDS:
            self._boots = min(self._boots, 1)
        return lived >= min(RESPAWN_SECONDS[1], RESPAWN_SECONDS[0] * self._boots)

    def boot(self, user_data: str) -> None:
        """Run the user data, with nothing of our own environment but PATH."""
        root, script = self._home / "root", self._home / "user-data"
        again = script.exists()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        script.touch(mode=0o600)
        script.write_text(user_data or "#!/bin/bash\n")
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(root),
            "TMPDIR": str(self._home),
            "LANG": "C.UTF-8",
            "WAP_ROOT": str(root),
            processes.MARK: self._id,
        } | ({"WAP_BOOT": "again"} if again else {})
        with (self._home / "console.log").open("ab") as console:
            self._main = subprocess.Popen(
                ["bash", str(script)],
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self._home / "pid").write_text(str(self._main.pid))
        self._adopted_pid, self._booted_at = 0, time.monotonic()
        self._boots += 1
