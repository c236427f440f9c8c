"""`wap server`: flags -> Settings -> Server, and nothing else."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from sqlalchemy.exc import SQLAlchemyError

from controlplane.domain.failure import WapFailure
from controlplane.server import Ready, Server
from controlplane.settings import Settings, load

# No pretty traceback: it would show the values of variables, and some of them are secret.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def server(
    config: Annotated[Path | None, typer.Option(help="TOML or JSON file with any of the settings")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="embedded database, master key and lock")] = None,
    db: Annotated[str | None, typer.Option(help="sqlite:///path or postgresql://user@host/name")] = None,
    listen: Annotated[str | None, typer.Option(help="address to bind")] = None,
    advertise: Annotated[str | None, typer.Option(help="host by which agents reach this control plane")] = None,
    api_port: Annotated[int | None, typer.Option(help="port of the public API")] = None,
    agent_port: Annotated[int | None, typer.Option(help="port of enrolled agents")] = None,
    console: Annotated[bool | None, typer.Option("--console/--no-console", help="serve the web console too")] = None,
    console_port: Annotated[int | None, typer.Option(help="port of the web console")] = None,
    region: Annotated[str | None, typer.Option(help="default AWS region")] = None,
    mongodb_dir: Annotated[str | None, typer.Option(help="MongoDB distribution: directory with bin/mongod")] = None,
    metrics_store: Annotated[str | None, typer.Option(help="duckdb, or the URL of a Prometheus remote write")] = None,
    metrics_read_url: Annotated[str | None, typer.Option(help="where PromQL is answered, if elsewhere")] = None,
    logs_store: Annotated[str | None, typer.Option(help="duckdb, or cloudwatch:LOG_GROUP")] = None,
    otlp_logs_url: Annotated[str | None, typer.Option(help="export log lines to this OTLP endpoint too")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="HTTP port of /metrics and /sd for Prometheus")] = None,
    allow_private_webhooks: Annotated[
        bool | None, typer.Option("--allow-private-webhooks", help="send alerts to webhooks at private addresses too")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json")] = None,
    ready: Annotated[str, typer.Option(help="how to say that it is ready: text or json")] = "text",
) -> None:
    """Run the control plane. Every setting can also come from the environment (WAP_NAME) or from --config."""
    flags = {name: value for name, value in locals().items() if name not in {"config", "ready"}}
    try:
        settings = load(flags, config)
        configure_logging(settings)
        asyncio.run(run(settings, ready))
    except WapFailure as failure:
        details = failure.details
        given = f" (given {details.given!r}; allowed: {details.allowed})" if details.allowed else ""
        typer.echo(f"wap server: {failure}{given}", err=True)
        raise typer.Exit(2) from None
    except (SQLAlchemyError, OSError) as error:
        lines = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
        typer.echo(f"wap server: cannot start: {lines[0]}", err=True)
        raise typer.Exit(1) from None


async def run(settings: Settings, ready: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    control_plane = Server(settings)
    try:
        facts = await control_plane.start()
        say(facts, ready)
        await control_plane.serve_until(stop)
    finally:
        await control_plane.close()


def say(facts: Ready, form: str) -> None:
    """Tell the terminal (and only it: the password must not reach a log) that everything answers."""
    if form == "json":
        print(json.dumps(facts.as_json()), flush=True)
        return
    print(f"WAP is ready: API {facts.api}, agents {facts.agents}, authority {facts.ca_file}", flush=True)
    if facts.console:
        print(f"Console: {facts.console}", flush=True)
    if facts.admin_password:
        print(f"User admin, one-time password (shown only now): {facts.admin_password}", flush=True)


def configure_logging(settings: Settings) -> None:
    """Structured lines on stderr, our own and the libraries' alike."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for noisy in ("botocore", "boto3", "urllib3", "alembic", "httpx", "dbos", "sqlalchemy", "nicegui", "uvicorn"):
        logging.getLogger(noisy).setLevel("WARNING")
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    app()
