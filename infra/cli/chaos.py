"""`fw chaos`: kills, freezes, cuts and starves the real processes under load, then compares everything with everything."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.chaos.report import Report
    from infra.chaos.run import Wish

FAILED = 1
ALL = "kill,stop,cut,slow,disk"


def chaos(
    kills: Annotated[
        int, typer.Option(min=0, max=100_000, help="How many processes to kill, one part as often as any other.")
    ] = 15,
    seed: Annotated[
        int | None, typer.Option(help="The same seed, the same schedule. Default: a new one, which is printed.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="No fault begins later; the load lasts at least so long.")] = None,
    faults: Annotated[
        str, typer.Option(help="Which, with commas: kill, stop (SIGSTOP), cut and slow (network), disk, clickhouse-disk.")
    ] = ALL,
    parts: Annotated[str, typer.Option(help="Only these parts, with commas, such as kafka,edge. Default: all.")] = "",
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="A platform that runs there is used. Default: a new one in a new directory.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="At the end also `fw verify` of every projection and `fw archive verify`.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the directory: logs, stores and the ledger.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as one line of JSON.")] = False,
) -> None:
    """Kill, freeze, cut off and starve the platform under load; then compare ledger, log, stores and subscriptions.

    Exit code 1: something was lost, doubled, out of order, invented or changed, or did not come back.

    \b
    Examples:
      fw chaos                                  a minute or two, every process once
      fw chaos --kills 100 --verify             what `make chaos` runs
      fw chaos --seed 7 --faults kill --parts kafka,commands --keep
    """
    from httpx import HTTPError
    from rich.console import Console

    from infra.chaos.commands import Unanswered
    from infra.chaos.faults import KINDS, NotRecovered
    from infra.chaos.report import show
    from infra.chaos.run import Wish
    from streams.telemetry import configure_logs

    kinds = tuple(filter(None, faults.split(",")))
    if unknown := set(kinds) - set(KINDS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(KINDS)}", param_hint="--faults")
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    wish = Wish(seed, kills, seconds, kinds, tuple(filter(None, parts.split(","))), is_verified=verify)
    rerun = _rerun(wish, faults, parts)
    configure_logs("chaos", "critical")  # whatever is cut off complains
    console = Console(highlight=False, stderr=as_json)
    console.print(f"Seed {seed}. {rerun}", markup=False)
    directory = data_dir or Path(tempfile.mkdtemp(prefix="fw-chaos-"))
    is_good = False
    try:
        result = _played(wish, directory, console.print)
        is_good = result.is_good
    except* (NotRecovered, Unanswered, TimeoutError, OSError, HTTPError) as group:
        problems = "; ".join(str(error) or type(error).__name__ for error in _leaves(group))
        typer.echo(f"fw chaos: {problems}. Everything is kept in {directory}. Again: {rerun}", err=True)
        raise typer.Exit(FAILED) from None
    finally:
        if is_good and not keep and data_dir is None:
            shutil.rmtree(directory, ignore_errors=True)
    show(result, console, rerun)
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
    if keep or not is_good:
        console.print(f"Everything is kept in {directory}", markup=False, soft_wrap=True)
    if not is_good:
        raise typer.Exit(FAILED)


def _played(wish: Wish, directory: Path, say: object) -> Report:
    from infra.chaos.run import run

    def line(text: str) -> None:
        assert callable(say)
        say(text, markup=False, style="dim", soft_wrap=True)

    return asyncio.run(run(wish, directory, line))


def _rerun(wish: Wish, faults: str, parts: str) -> str:
    options = [f"--seed {wish.seed}", f"--kills {wish.kills}"]
    options += [f"--seconds {wish.seconds:g}"] if wish.seconds else []
    options += [f"--faults {faults}"] if faults != ALL else []
    options += [f"--parts {parts}"] if parts else []
    return f"fw chaos {' '.join(options)}"


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    return [leaf for e in group.exceptions for leaf in (_leaves(e) if isinstance(e, BaseExceptionGroup) else [e])]
