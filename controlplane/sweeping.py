"""`wap sweep`: what the cloud holds that no cluster owns. Reports; deletes only when asked to, and only what is proved."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from controlplane.cloud.ec2 import EC2Cloud
from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.operations.sweep import Orphan, find_orphans, remove_orphans
from controlplane.settings import Settings, load
from controlplane.store.database import Database
from controlplane.store.tables import Installation

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Found:
    """What one region holds, and what of it was deleted."""

    region: str
    orphans: Sequence[Orphan]
    deleted: Sequence[str]


@app.command()
def sweep(
    config: Annotated[Path | None, typer.Option(help="the control plane's settings file")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="the control plane's state directory")] = None,
    db: Annotated[str | None, typer.Option(help="the control plane's database")] = None,
    region: Annotated[str | None, typer.Option(help="the control plane's default region")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="delete what the ledger proves is ours")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON array instead of a table")] = False,
) -> None:
    """Show cloud resources with this installation's tag that no cluster owns. May run beside the control plane."""
    try:
        settings = load({"state_dir": state_dir, "db": db, "region": region}, config)
        found = asyncio.run(look(settings, delete=delete))
    except WapFailure as failure:
        typer.echo(f"wap sweep: {failure}", err=True)
        raise typer.Exit(2) from None
    show(found, as_json=as_json)


async def look(settings: Settings, *, delete: bool) -> list[Found]:
    """Look at every region of the settings. UNAVAILABLE where no control plane has ever used the database."""
    database = Database(settings.db)
    try:
        known = await database.read(lambda tx: tx.get(Installation, "install-id"))
        if known is None:
            raise WapFailure(FailureCode.UNAVAILABLE, f"no control plane has used {settings.state_dir} yet", field="db")
        return [await _look_at(region, database, known.value, delete=delete) for region in settings.regions]
    finally:
        await database.close()


async def _look_at(region: str, database: Database, install_id: str, *, delete: bool) -> Found:
    cloud = EC2Cloud(region)
    try:
        orphans = await find_orphans(database, cloud, install_id)
        deleted = await remove_orphans(cloud, orphans) if delete else []
    finally:
        cloud.close()
    return Found(region, orphans, deleted)


def show(found: Sequence[Found], *, as_json: bool) -> None:
    """For people a table, for programs JSON."""
    rows = [
        {
            "region": one.region,
            "kind": orphan.resource.kind,
            "id": orphan.resource.id,
            "cluster": orphan.resource.tags.get("wap:cluster", ""),
            "proved": orphan.proved,
            "deleted": orphan.resource.id in one.deleted,
        }
        for one in found
        for orphan in one.orphans
    ]
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        print("No resource without a cluster.")
        return
    table = Table("region", "kind", "id", "cluster", "ours by the ledger", "deleted")
    for row in rows:
        marks = ("yes" if row["proved"] else "no: left alone", "yes" if row["deleted"] else "")
        table.add_row(str(row["region"]), str(row["kind"]), str(row["id"]), str(row["cluster"]), *marks)
    Console().print(table)
