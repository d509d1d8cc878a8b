"""`fw logs PART`: the log of one part."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import DEFAULT_DATA_DIR, DataDir
from infra.embedded.errors import CannotStart
from infra.supervisor.layout import Directory

POLL_SECONDS = 0.2


def logs(
    part: Annotated[str, typer.Argument(help="As `fw status` names it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show the log of a part."""
    directory = Directory(data_dir.resolve())
    log = directory.log(part)
    if not log.is_file():
        there = ", ".join(sorted(file.stem for file in directory.logs.glob("*.log"))) or "none yet"
        raise CannotStart(f"There is no log of {part!r} in {directory.logs}. Logs there: {there}.")
    offset = _last_lines(log, lines)
    while follow:
        if log.stat().st_size < offset:
            offset = 0  # shortened
        with log.open("rb") as f:
            f.seek(offset)
            new = f.read()
        offset += len(new)
        typer.echo(new, nl=False)
        time.sleep(POLL_SECONDS)


def _last_lines(log: Path, lines: int) -> int:
    """Prints them; returns where they end."""
    with log.open("rb") as f:
        for line in deque(f, lines):
            typer.echo(line, nl=False)
        return f.tell()
