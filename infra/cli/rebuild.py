"""`fw rebuild`: a projection made anew beside the live one, compared, and shown to readers; back again; dropped; listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.projection_work import USAGE, DataDir, Json, Limit, Name, print_compared, work
from infra.embedded.errors import CannotStart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.builds import Build
    from projections.rebuild.site import Site


def rebuild(
    name: Name,
    *,
    rollback: Annotated[bool, typer.Option("--rollback", help="Let readers see the build of before again.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Drop every build that readers do not see.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="The builds that there are, and how far each is behind.")] = False,
    accept_new_definition: Annotated[
        bool, typer.Option("--accept-new-definition", help="The live build is of another version: flip without comparing.")
    ] = False,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Flip although rows differ: the live build is what is wrong.")
    ] = False,
    limit: Limit = 20,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Make a projection anew beside the live one, compare, and let readers see it.

    Readers and workers are not stopped. Killed at any point, it goes on when it is run again.

    fw rebuild streams             replay, compare, flip; the old build is kept

    fw rebuild streams --rollback  back to the kept build, which is brought up to date first

    fw rebuild streams --drop      remove builds that nobody sees
    """
    if rollback + drop + list_ > 1:
        raise CannotStart("--rollback, --drop and --list: one of them at a time", USAGE)
    if list_:
        _list(name, data_dir, as_json)
    elif drop:
        _drop(name, data_dir, as_json)
    elif rollback:
        _roll_back(name, data_dir, as_json)
    else:
        _rebuild(name, data_dir, as_json, accept_new_definition, accept_differences, limit)


def _rebuild(name: str, data_dir: Path | None, as_json: bool, definition: bool, differences: bool, limit: int) -> None:
    from projections.rebuild import run

    async def task(site: Site) -> None:
        build, compared = await run.rebuild(site, accept_new_definition=definition, accept_differences=differences, limit=limit)
        print_compared(compared, as_json)
        outcome = {"projection": name, "active": build.number, "skipped": site.progress.skipped}
        if as_json:
            print(json.dumps(outcome))
            return
        if site.progress.skipped:
            print(f"{site.progress.skipped} records cannot be read: `fw dlq list --projection {name}`")
        print(f"Build {build.number} of {name} is active. `--rollback` goes back to the one before, `--drop` removes it.")

    work(name, data_dir, as_json, "rebuild", task)


def _roll_back(name: str, data_dir: Path | None, as_json: bool) -> None:
    from projections.rebuild import run

    async def task(site: Site) -> None:
        left, build = await run.roll_back(site)
        outcome = {"projection": name, "active": build.number, "left": left.number}
        print(json.dumps(outcome) if as_json else f"Build {build.number} of {name} is active again; {left.number} is kept.")

    work(name, data_dir, as_json, "rollback", task)


def _drop(name: str, data_dir: Path | None, as_json: bool) -> None:
    from projections.rebuild import run

    async def task(site: Site) -> None:
        numbers = [build.number for build in await run.drop(site)]
        if as_json:
            print(json.dumps({"projection": name, "dropped": numbers}))
        elif numbers:
            print(f"Dropped build {', '.join(map(str, numbers))} of {name}.")
        else:
            print(f"{name} has no build but the active one.")

    work(name, data_dir, as_json, "drop", task)


def _list(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Without the lock: it may be looked at while a rebuild runs."""
    import asyncio

    from infra.cli.projection_work import projection_called, settings_of
    from streams.faust_batches.fetched import Halted

    projection_called(name)
    try:
        found = asyncio.run(_builds(name, settings_of(data_dir).postgres_url))
    except (Halted, OSError) as error:
        raise CannotStart(str(error)) from None
    for build, offsets in found:
        activated = None if build.activated_at is None else build.activated_at.isoformat(timespec="seconds")
        row = {
            "build": build.number,
            "version": build.version,
            "state": build.state,
            "created_at": build.created_at.isoformat(timespec="seconds"),
            "activated_at": activated,
            "offsets": offsets,
        }
        if as_json:
            print(json.dumps(row))
        else:
            print("  ".join(f"{key} {value}" for key, value in row.items() if value is not None))
    if not found and not as_json:
        print(f"{name} has no build yet.")


async def _builds(name: str, url: str) -> Sequence[tuple[Build, int]]:
    """Builds, and the sum of their positions: who has the smaller one is behind."""
    from projections import builds
    from projections.platform import connect
    from projections.rebuild.run import positions

    pool = await connect(url, max_size=1)
    try:
        await builds.migrated(pool)
        return [(build, sum((await positions(pool, build)).values())) for build in await builds.builds(pool, name)]
    finally:
        await pool.close()
