"""How `fw up` tells a person what happens: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.supervisor.status import PartStatus, Phase

SIGNS = {
    Phase.WAITING: "[dim]○[/]",
    Phase.STARTING: "[yellow]◐[/]",
    Phase.READY: "[green]●[/]",
    Phase.RESTARTING: "[red]◐[/]",
    Phase.DONE: "[green]✓[/]",
    Phase.STOPPED: "[dim]○[/]",
}


class Display(Protocol):
    def changed(self, part: PartStatus) -> None: ...
    def say(self, sentence: str) -> None: ...
    def close(self) -> None: ...


class Lines:
    """One line for each thing that happened, as for a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def changed(self, part: PartStatus) -> None:
        if part.phase in (Phase.READY, Phase.DONE):
            took = f" after {part.ready_seconds:.1f} s" if part.ready_seconds is not None else ""
            self.say(f"{part.name} {part.phase}{took}" + (f" (pid {part.pid})" if part.phase is Phase.READY else ""))
        elif part.note:
            self.say(f"{part.name}: {part.note}")

    def say(self, sentence: str) -> None:
        with suppress(OSError):  # a terminal that was closed must not keep us from stopping in order
            self._console.print(
                f"[{time.monotonic() - self._began:6.1f} s] {sentence}", markup=False, highlight=False, soft_wrap=True
            )

    def close(self) -> None:
        return


class Screen:
    """A table that is drawn again as parts change, and lines above it for what a person should not miss."""

    def __init__(self, console: Console, parts: Mapping[str, PartStatus], title: str) -> None:
        self._console, self._parts, self._title = console, parts, title
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=8, transient=True)
        self._live.start()

    def changed(self, _part: PartStatus) -> None:
        return  # the next refresh shows it

    def say(self, sentence: str) -> None:
        with suppress(OSError):
            self._console.print(f"{time.strftime('%H:%M:%S')} {sentence}", markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()

    def _table(self) -> Table:
        table = Table(title=self._title, title_justify="left", box=None, show_header=False, pad_edge=False)
        for part in self._parts.values():
            seconds = part.ready_seconds
            if part.phase in (Phase.STARTING, Phase.RESTARTING):
                seconds = time.monotonic() - part.began_at
            took = f"{seconds:5.1f} s" if seconds is not None else ""
            table.add_row(SIGNS[part.phase], part.name, f"[dim]{part.phase}[/]", took, part.note)
        return table
