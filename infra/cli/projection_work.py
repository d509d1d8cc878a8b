"""What `fw rebuild`, `fw verify` and `fw replay` share: whose projection, which platform, and how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from infra.embedded.errors import IN_USE, CannotStart
from projections import PROJECTIONS

if TYPE_CHECKING:
    from projections.builds import Projection
    from projections.rebuild.compare import Compared
    from projections.rebuild.progress import Progress
    from projections.rebuild.site import Site
    from streams.settings import Settings

T = TypeVar("T")
USAGE: Final = 2
LINE_SECONDS: Final = 1.0
"""How often --json prints a line of progress."""

Name = Annotated[str, typer.Argument(help=f"One of {', '.join(PROJECTIONS)}.", show_default=False)]
DataDir = Annotated[Path | None, typer.Option(help="Directory of a running `fw up`; FW_DATA_DIR, else ./data.")]
Json = Annotated[bool, typer.Option("--json", help="Lines of JSON: progress once a second, then the outcome.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="So many differing rows of a table are printed.")]


def projection_called(name: str) -> Projection:
    if name not in PROJECTIONS:
        raise CannotStart(f"there is no projection {name!r}: there are {', '.join(PROJECTIONS)}", USAGE)
    from projections.worker import projection_of

    return projection_of(name)


def settings_of(data_dir: Path | None) -> Settings:
    from streams.settings import SettingsError, read_settings

    try:
        return read_settings({**os.environ, **({"FW_DATA_DIR": str(data_dir)} if data_dir else {})})
    except SettingsError as error:
        raise CannotStart(str(error)) from None


def work(name: str, data_dir: Path | None, as_json: bool, doing: str, task: Callable[[Site], Awaitable[T]]) -> T:
    """Runs a task on a projection, alone, and shows its progress. Raises CannotStart with a sentence."""
    import asyncpg
    from aiokafka.errors import KafkaError

    from projections.rebuild.errors import Busy, CannotRebuild
    from streams.archive.errors import ArchiveError
    from streams.batch_process import tune
    from streams.errors import Superseded, Transient
    from streams.faust_batches.fetched import Halted

    projection, settings = projection_called(name), settings_of(data_dir)
    tune()
    try:
        return asyncio.run(_work(projection, settings, as_json, doing, task))
    except Busy as error:
        raise CannotStart(str(error), IN_USE) from None
    except Superseded as error:
        raise CannotStart(f"{error}. Readers see what they saw before; run this again: it goes on from here.") from None
    except (Halted, ArchiveError, Transient) as error:
        raise CannotStart(f"{str(error).rstrip('.')}. Readers see what they saw before.") from None
    except CannotRebuild as error:
        if hasattr(error, "compared"):
            print_compared(error.compared, as_json)
        raise CannotStart(str(error)) from None
    except (OSError, KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotStart(f"a server does not answer or ended: {error!r}. Run this again: it goes on from here.") from None


async def _work(projection: Projection, settings: Settings, as_json: bool, doing: str, task: Callable[[Site], Awaitable[T]]) -> T:
    from projections.rebuild.lock import alone
    from projections.rebuild.progress import Progress
    from projections.rebuild.site import open_site

    progress = Progress(lambda sentence: print_line(as_json, sentence))
    async with (
        alone(settings.postgres_url, projection.name, doing),
        open_site(projection, settings, progress) as site,
        _shown(progress, as_json),
    ):
        return await task(site)


def print_line(as_json: bool, sentence: str) -> None:
    print(json.dumps({"said": sentence}) if as_json else sentence, flush=True)


@contextlib.asynccontextmanager
async def _shown(progress: Progress, as_json: bool) -> AsyncIterator[None]:
    """A bar on a terminal, a line a second with --json, nothing in between where neither is wanted."""
    if not as_json and not sys.stdout.isatty():
        yield
        return
    showing = asyncio.create_task(_lines(progress) if as_json else _bar(progress))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _lines(progress: Progress) -> None:
    while True:
        await asyncio.sleep(LINE_SECONDS)
        left = progress.left_seconds
        print(
            json.dumps(
                {
                    "phase": progress.phase,
                    "done": progress.done,
                    "total": progress.total,
                    "events_per_second": round(progress.events_per_second),
                    "left_seconds": None if left is None else round(left, 1),
                }
            ),
            flush=True,
        )


async def _bar(progress: Progress) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, TimeRemainingColumn(), transient=True) as bar:
        shown = bar.add_task("", total=None, rate="")
        while True:
            rate = f"{progress.events_per_second:,.0f}/s" if progress.events else ""
            bar.update(shown, description=progress.phase, total=progress.total or None, completed=progress.done, rate=rate)
            await asyncio.sleep(0.1)


def print_compared(compared: Sequence[Compared], as_json: bool) -> None:
    for table in compared:
        if as_json:
            rows = [{"key": d.key, "live": d.live, "rebuilt": d.rebuilt} for d in table.differences]
            counts = {"live_rows": table.live_rows, "rebuilt_rows": table.rebuilt_rows}
            print(json.dumps({"table": table.table, **counts, "differences": rows}, default=str), flush=True)
            continue
        outcome = f"{len(table.differences)} rows differ" if table.differences else "equal"
        print(f"{table.table}: {table.live_rows:,} rows live, {table.rebuilt_rows:,} rebuilt: {outcome}")
        for difference in table.differences:
            print(f"  {difference}")
