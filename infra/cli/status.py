"""`fw status`: what runs, since when, at what cost."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from infra.cli.options import DEFAULT_DATA_DIR, DataDir
from infra.embedded.errors import FAILED
from infra.supervisor.layout import Directory
from infra.supervisor.state import is_running, running_stack


def status(
    as_json: Annotated[bool, typer.Option("--json", help="The line that `fw up --json` printed, as it is now.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """What runs, since when, and where it is reached. Exit code 1: nothing runs here."""
    directory = Directory(data_dir.resolve())
    known = running_stack(directory)
    if known is None:
        starting = is_running(directory)
        typer.echo(f"{'Starting or stopping' if starting else 'Nothing runs'} in {directory.root}.", err=True)
        raise typer.Exit(FAILED)
    if as_json:
        from infra.cli.up import printed

        typer.echo(printed(known))
        return
    _table(json.loads(json.dumps(known)))
    from infra.cli.standing import standing

    halted, letters = standing(directory.root)
    for sentence in halted:
        typer.echo(sentence)
    if letters:
        typer.echo(f"{letters} dead letters wait: `fw dlq list`")


def _table(known: dict[str, dict[str, dict[str, object]]]) -> None:
    import psutil
    from rich.console import Console
    from rich.table import Table

    from infra.supervisor.memory import proportional_bytes

    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "pid", "up", "restarts", "memory", "lag"):
        table.add_column(heading, justify="left" if heading in ("part", "state") else "right", no_wrap=True)
    total = 0
    for name, process in known["processes"].items():
        part, pid = known["parts"][name], process["pid"]
        used = proportional_bytes(pid) if isinstance(pid, int) and psutil.pid_exists(pid) else 0
        total += used
        since = part["started_at"]
        uptime = _duration(time.time() - since) if isinstance(since, float) else ""
        table.add_row(
            name, str(part["phase"]), str(pid), uptime, str(part["restarts"]), f"{used >> 20} MB", _lag(process["metrics"])
        )
    console = Console()
    console.print(table)
    console.print(f"{total >> 20} MB altogether (shared memory counted once)", highlight=False)
    console.print(f"GraphQL: {known['graphql']}", highlight=False, soft_wrap=True)


def _lag(metrics_url: object) -> str:
    """Records that a projection is behind; empty for every other part."""
    import httpx

    if not isinstance(metrics_url, str):
        return ""
    try:
        lines = httpx.get(metrics_url, timeout=2).text.splitlines()
    except httpx.HTTPError:
        return "?"
    behind = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("fw_projection_lag_records{")]
    return f"{sum(behind):.0f}" if behind else ""


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.0f} s"
