"""`python -m console.fake`: serve the fake by itself, to work on the console or the command line without a control plane.

An argument is the port; `--furnished` begins with a small fleet that has some troubles.
"""

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from console.fake.control import FakeControl
from console.fake.furnish import furnish

PORT = 7499


async def _serve() -> None:
    with tempfile.TemporaryDirectory(prefix="wap-fake-") as directory:
        async with FakeControl(step_seconds=1.0, port=_port()) as fake:
            if "--furnished" in sys.argv:
                await furnish(fake)
            ca_file = Path(directory) / "ca.pem"
            ca_file.write_bytes(fake.ca_pem or b"")
            sys.stdout.write(
                "Fake control plane: no AWS, no MongoDB, everything is forgotten at the end.\n"
                f"  wap login --endpoint {fake.endpoint} --ca-file {ca_file} --username admin   (password: password)\n"
            )
            sys.stdout.flush()
            await asyncio.Event().wait()


def _port() -> int:
    numbers = [int(given) for given in sys.argv[1:] if given.isdigit()]
    return numbers[0] if numbers else PORT


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(_serve())
