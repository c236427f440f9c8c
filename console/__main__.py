"""`wap console`: the web console alone, for a control plane that runs elsewhere."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from console.app import serve
from console.client.config import ConfigError, read_ca

HOST = "127.0.0.1"
PORT = 8080

app = typer.Typer(add_completion=False)


@app.command()
def console(
    server: Annotated[str, typer.Option(help="The control plane's API, host:port.", envvar="WAP_ENDPOINT")],
    ca_file: Annotated[
        Path | None,
        typer.Option(
            help="Certificate authority to trust (PEM); the well known ones if left out.", envvar="WAP_CA_FILE"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="WAP_CONSOLE_HOST")] = HOST,
    port: Annotated[int, typer.Option(help="Port to listen on.", envvar="WAP_CONSOLE_PORT", min=1, max=65535)] = PORT,
) -> None:
    """Run the web console alone. Put a TLS proxy in front of it unless it listens on this machine only."""
    try:
        ca_pem = read_ca(ca_file) if ca_file else None
        asyncio.run(_run(server, ca_pem, host, port))
    except ConfigError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise typer.Exit(2) from None
    except OSError as error:
        sys.stderr.write(f"Error: the console cannot listen on {host}:{port}: {error.strerror}.\n")
        raise typer.Exit(1) from None


async def _run(endpoint: str, ca_pem: bytes | None, host: str, port: int) -> None:
    stop, started = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has no handlers in the loop
            loop.add_signal_handler(name, stop.set)
    serving = asyncio.create_task(
        serve(endpoint=endpoint, ca_pem=ca_pem, host=host, port=port, stop=stop, started=started)
    )
    listening = asyncio.create_task(started.wait())
    await asyncio.wait((serving, listening), return_when=asyncio.FIRST_COMPLETED)
    if listening.done():
        sys.stdout.write(f"Console: http://{host}:{port}\n")
        sys.stdout.flush()
    listening.cancel()
    await serving


if __name__ == "__main__":
    app()
