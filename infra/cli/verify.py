"""`fw verify`: is what readers see what the log says?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from infra.cli.projection_work import DataDir, Json, Limit, Name, print_compared, work
from infra.embedded.errors import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.rebuild.compare import Compared
    from projections.rebuild.site import Site


def verify(name: Name, *, limit: Limit = 20, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Compare a projection with a clean fold of the whole history; print the rows that differ. Exit code 1: some do.

    The fold goes into tables of its own, which are gone afterwards. Readers and workers are not stopped.

    fw verify streams

    fw verify viewer_sessions --json --limit 100
    """

    async def task(site: Site) -> Sequence[Compared]:
        from projections.rebuild import run

        return await run.verify(site, limit)

    compared = work(name, data_dir, as_json, "verification", task)
    print_compared(compared, as_json)
    differing = sum(len(table.differences) for table in compared)
    if as_json:
        print(json.dumps({"projection": name, "equal": not differing}))
    elif differing:
        typer.echo(f"{name} is not what the log says. `fw rebuild {name} --accept-differences` makes it so.", err=True)
    else:
        print(f"{name} is what the log says.")
    if differing:
        raise typer.Exit(FAILED)
