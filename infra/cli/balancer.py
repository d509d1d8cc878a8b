"""`fw balancer`: how nodes stand, and where viewers would have gone under other weights."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from infra.embedded.errors import CannotStart

if TYPE_CHECKING:
    from gateway.balancer.picture import NodeState, Picture
    from projections.routes import Moved
    from streams.balancing.score import Ceilings, Weights
    from streams.settings import Settings

app = typer.Typer(name="balancer", help="Which node serves whom: status, and what if. docs/balancer.md", no_args_is_help=True)
T = TypeVar("T")
USAGE: Final = 2
AGES: Final = {"m": "minutes", "h": "hours", "d": "days"}
NAMES: Final = {"cpu": "cpu", "ram": "ram", "bw": "bandwidth", "bandwidth": "bandwidth", "geo": "geo", "bonus": "bonus"}
WEIGHT_MAX: Final = 100_000
NOBODY: Final = "(no node)"

WeightsText = Annotated[
    str, typer.Option("--weights", help="cpu=500,ram=500,bw=1000,geo=1000,bonus=50; what is left out is as it is now.")
]
From = Annotated[str, typer.Option("--from", metavar="AGE|TIME", help="30m, 2h, 7d, or 2026-11-21T04:00:00Z.")]
To = Annotated[str, typer.Option("--to", metavar="AGE|TIME", help="Up to and without this time; `now`.")]
Purpose = Annotated[str, typer.Option(help="VIEWER, INGEST or SOURCE: what nodes were asked for.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of a running `fw up`; FW_DATA_DIR, else ./data.")]


@app.command()
def whatif(
    weights: WeightsText = "",
    from_: From = "24h",
    to: To = "now",
    purpose: Purpose = "VIEWER",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Decide what was decided again, under other weights: who would have gone elsewhere, by node and by country.

    \b
      fw balancer whatif --weights cpu=800,geo=500 --from 2h
      fw balancer whatif --weights bonus=0 --from 2026-11-20 --to 2026-11-21 --json
    """
    changed, start, end = _weights(weights), _time("--from", from_), _time("--to", to)
    if start >= end:
        raise CannotStart("--from must be before --to", USAGE)
    if purpose not in ("VIEWER", "INGEST", "SOURCE"):
        raise CannotStart(f"--purpose is VIEWER, INGEST or SOURCE, not {purpose!r}", USAGE)

    async def ask(settings: Settings) -> tuple[Weights, Sequence[Moved]]:
        from projections import clickhouse, routes

        held = (await _picture(settings)).weights
        wanted = replace(held, **changed)
        ch = await clickhouse.connect(settings.clickhouse_url)
        try:
            return wanted, await routes.what_if(ch, wanted, start, end, purpose)
        finally:
            await ch.close()

    wanted, moved = _run(data_dir, ask)
    found = {"from": start.isoformat(), "to": end.isoformat(), "purpose": purpose, "weights": asdict(wanted), **summary(moved)}
    if as_json:
        typer.echo(json.dumps(found))
        return
    _print_whatif(found, moved)


def summary(moved: Sequence[Moved]) -> dict[str, object]:
    """Sums of decisions: all, by node, by country."""
    decisions, elsewhere = sum(m.decisions for m in moved), sum(m.decisions for m in moved if m.went != m.would)
    went, would, lost, gained = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    asked, left = Counter[str](), Counter[str]()
    for m in moved:
        went[m.went] += m.decisions
        would[m.would] += m.decisions
        asked[m.country] += m.decisions
        if m.went != m.would:
            lost[m.went] += m.decisions
            gained[m.would] += m.decisions
            left[m.country] += m.decisions
    return {
        "decisions": decisions,
        "elsewhere": elsewhere,
        "truncated": sum(m.truncated for m in moved),
        "nodes": [
            {"node": node or None, "went": went[node], "would": would[node], "lost": lost[node], "gained": gained[node]}
            for node in sorted(went.keys() | would.keys())
        ],
        "countries": [
            {"country": country or None, "decisions": asked[country], "elsewhere": left[country]} for country in sorted(asked)
        ],
    }


def _print_whatif(found: dict[str, object], moved: Sequence[Moved]) -> None:
    from rich.console import Console

    numbers = summary(moved)
    decisions, elsewhere = numbers["decisions"], numbers["elsewhere"]
    typer.echo(f"{decisions:,} decisions from {found['from']} to {found['to']}; under {_text(found['weights'])}")
    typer.echo(f"{elsewhere:,} of them would have gone elsewhere.")
    if numbers["truncated"]:
        typer.echo(f"Of {numbers['truncated']:,} not all candidates were kept: one that was far behind might win, too.")
    console = Console()
    console.print(_table(numbers["nodes"], ("node", "went", "would", "lost", "gained"), NOBODY))
    console.print(_table(numbers["countries"], ("country", "decisions", "elsewhere"), "(unknown)"))


def _table(rows: object, columns: Sequence[str], unknown: str) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    assert isinstance(rows, list)
    for row in rows:
        first, *rest = (row[column] for column in columns)
        table.add_row(unknown if first is None else str(first), *(f"{number:,}" for number in rest))
    return table


def _text(weights: object) -> str:
    assert isinstance(weights, dict)
    return ", ".join(f"{name} {value}" for name, value in weights.items())


@app.command()
def status(as_json: Json = False, data_dir: DataDir = None) -> None:
    """How every node stands with the balancer, and the weights: as the tables have it."""

    async def ask(settings: Settings) -> tuple[Picture, Ceilings]:
        from gateway.app import ceilings

        return await _picture(settings), ceilings(settings)

    picture, limits = _run(data_dir, ask)
    live = Counter(node for nodes in picture.live_streams().values() for node in nodes)
    shown = [_shown(state, live[state.node.node_id], limits) for _, state in sorted(picture.nodes().items())]
    if as_json:
        typer.echo(json.dumps({"weights": asdict(picture.weights), "nodes": shown}))
        return
    from rich.console import Console
    from rich.table import Table

    typer.echo(f"weights: {_text(asdict(picture.weights))}")
    table = Table(box=None, pad_edge=False)
    for column in ("node", "viewers go there", "mode", "cpu", "ram", "bandwidth", "viewers", "live", "host"):
        table.add_column(column)
    for row in shown:
        table.add_row(
            str(row["node"]),
            "yes" if row["excluded"] is None else f"no: {row['excluded']}",
            str(row["mode"]),
            *(f"{row[name]} %" for name in ("cpu_percent", "ram_percent", "bandwidth_percent")),
            str(row["viewers"]),
            str(row["live_streams"]),
            str(row["host"]),
        )
    Console().print(table)


def _shown(state: NodeState, live: int, limits: Ceilings) -> dict[str, object]:
    from streams.balancing.score import Exclusion, standing
    from streams.balancing.score import Purpose as Wanted

    node = state.node
    reason = standing(node, Wanted.VIEWER, limits, int(time.time() * 1000))
    if reason is None and node.bandwidth_ppm > limits.bandwidth_ppm:
        reason = Exclusion.BANDWIDTH_FULL
    return {
        "node": node.node_id,
        "excluded": None if reason is None else str(reason),
        "mode": str(node.mode),
        "cpu_percent": round(node.cpu_ppm / 10_000, 1),
        "ram_percent": round(node.ram_ppm / 10_000, 1),
        "bandwidth_percent": round(node.bandwidth_ppm / 10_000, 1),
        "viewers": state.viewers,
        "live_streams": live,
        "host": state.host,
        "registered": state.is_registered,
        "sampled_at_ms": node.sampled_at_ms,
    }


async def _picture(settings: Settings) -> Picture:
    from gateway.balancer.picture import Picture
    from projections import platform

    picture = Picture()
    database = await platform.connect(settings.postgres_url)
    try:
        await picture.reload(database, int(time.time() * 1000))
    finally:
        await database.close()
    return picture


def _weights(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.strip().partition("=")
        if name not in NAMES or not number.isdecimal() or int(number) > WEIGHT_MAX:
            raise CannotStart(f"--weights is like cpu=500,geo=1000, each from 0 to {WEIGHT_MAX}; not {part!r}", USAGE)
        found[NAMES[name]] = int(number)
    return found


def _time(option: str, text: str) -> datetime:
    if text == "now":
        return datetime.now(UTC)
    if text[:-1].isdecimal() and text[-1:] in AGES:
        return datetime.now(UTC) - timedelta(**{AGES[text[-1]]: int(text[:-1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CannotStart(f"{option} is an age (30m, 2h, 7d) or a time (2026-11-21T04:00:00Z), not {text!r}", USAGE) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _run(data_dir: Path | None, work: Callable[[Settings], Awaitable[T]]) -> T:
    """Does it with the stores of the platform; what goes wrong there becomes a sentence."""
    import asyncpg
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from infra.cli.projection_work import settings_of
    from streams.errors import Transient

    async def run(settings: Settings) -> T:
        return await work(settings)

    settings = settings_of(data_dir)
    try:
        return asyncio.run(run(settings))
    except asyncpg.UndefinedTableError:
        raise CannotStart("the balancer's tables are not there yet: does `projections-routing` run?") from None
    except Transient as error:
        raise CannotStart(str(error)) from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ClickHouseError) as error:
        raise CannotStart(f"a server does not answer: {error!r}") from None
