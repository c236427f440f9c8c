"""mongod's log kept from filling the node's disk: rotated by mongod itself when it is large, old ones removed."""

import asyncio
from pathlib import Path

from agent.failure import NodeFailure
from agent.logs import Log
from agent.mongod import log as mongod_log
from agent.mongod.supervisor import Supervisor

# Together 320 MiB at most, which is hours of a log at its worst.
MOST_BYTES, FILES_KEPT = 64 * 1024 * 1024, 4
LOOK_SECONDS = 10.0
log = Log(__name__)


async def keep_small(mongod: Supervisor, path: Path, most_bytes: int = MOST_BYTES, look: float = LOOK_SECONDS) -> None:
    """Look after the log at `path`. Never returns."""
    while True:
        try:
            if mongod_log.size(path) > most_bytes and mongod.pid:
                await mongod.client().rotate_log()
                log.info("mongod's log was rotated")
            await asyncio.to_thread(remove_old, path)
        except (NodeFailure, OSError) as failure:  # mongod that does not answer writes little
            log.warning("mongod's log cannot be rotated", why=str(failure))
        except Exception:
            log.exception("the look after mongod's log failed")
        await asyncio.sleep(look)


def remove_old(path: Path, kept: int = FILES_KEPT) -> None:
    """Remove all but the newest files that were rotated: mongod gives them the time as an ending."""
    rotated = sorted(path.parent.glob(f"{path.name}.2*"))
    for old in rotated[: max(0, len(rotated) - kept)]:
        old.unlink(missing_ok=True)
