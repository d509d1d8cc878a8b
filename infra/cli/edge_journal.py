"""`fw edge journal`: what a node still has to tell the platform, what the platform refused, and sending that again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from infra.embedded.errors import FAILED

if TYPE_CHECKING:
    from edge_agent.journal_view import Held, JournalView

app = typer.Typer(name="journal", help="The facts that a node holds. docs/edge-journal.md", no_args_is_help=True)

StateDir = Annotated[Path, typer.Option(envvar="FW_EDGE_STATE_DIR", help="The agent's directory; it may be running.")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON a fact.")]
Numbers = Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="First column of `fw edge journal list`.")]
DEFAULT_STATE_DIR = Path("data/edge")
T = TypeVar("T")


@app.callback()
def journal() -> None:
    """The facts that a node holds: what waits for the platform, and what the platform refused."""


@app.command("list")
def list_(
    waiting: Annotated[bool, typer.Option("--waiting", help="What waits for the platform, instead of what it refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, oldest first.")] = 100,
    as_json: Json = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """List what the platform refused, with its reason; with --waiting, what is on its way.

    Examples:

    \b
      fw edge journal list --state-dir /var/lib/fw-edge
      fw edge journal list --waiting --limit 20 --json
    """
    found, summary = _look(state_dir, lambda view: (view.waiting(limit) if waiting else view.quarantined(limit), view.summary()))
    if as_json:
        for held in found:
            typer.echo(json.dumps(_fields(held)))
        return
    if found:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for heading in ("number", "written", "record", "about", "state", "reason"):
            table.add_column(heading, overflow="fold")
        for held in found:
            known = _fields(held)
            why = f"{held.code}: {held.reason}" if held.code else ""
            written, record, about = (str(known[name] or "-") for name in ("written_at", "record", "aggregate_id"))
            table.add_row(str(held.seq), written, record, about, held.state, why)
        Console().print(table)
    typer.echo(f"{summary.waiting:,} facts wait for the platform ({summary.waiting_bytes:,} bytes)")
    typer.echo(f"{summary.quarantined:,} facts are in quarantine")
    for dropped in summary.dropped:
        typer.echo(f"given up for the byte budget and not yet said: {dropped.rows:,} {dropped.record}")
    if summary.quarantined and not waiting:
        typer.echo("`fw edge journal show NUMBER` shows all of one; `fw edge journal retry` sends it again.")


@app.command()
def show(numbers: Numbers = None, as_json: Json = False, state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Show everything about facts: the event, why it was refused, and the bytes.

    Example: fw edge journal show 1042
    """
    if not numbers:
        raise typer.BadParameter("name a fact: the first column of `fw edge journal list`")
    found = _look(state_dir, lambda view: view.find(numbers))
    _complain_about_missing(numbers, found)
    for held in found:
        fields = {**_fields(held), "event": _event(held), "value_hex": held.value.hex()}
        if as_json:
            typer.echo(json.dumps(fields))
            continue
        for name, value in fields.items():
            if value is not None and name != "value_hex":
                typer.echo(f"{name:14} {json.dumps(value) if isinstance(value, dict) else value}")
        for at in range(0, len(held.value), 32):
            typer.echo(f"  {at:06x}  {held.value[at : at + 32].hex(' ', 2)}")
        typer.echo("")


@app.command()
def retry(
    numbers: Numbers = None,
    code: Annotated[str | None, typer.Option(help="All that were refused with this code, such as FOREIGN_TENANT.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are in quarantine.")] = False,
    as_json: Json = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Send facts again that the platform refused: the same bytes, so the same event ids. A running agent does it within seconds.

    Examples:

    \b
      fw edge journal retry 1042 1043
      fw edge journal retry --code FOREIGN_TENANT
    """
    if not (numbers or code or everything):
        raise typer.BadParameter("say which: name them, or give --code or --all")

    def mark(view: JournalView) -> int:
        if numbers:
            _complain_about_missing(numbers, [held for held in view.find(numbers) if held.code is not None])
        return view.want_again(numbers, code)

    marked = _look(state_dir, mark)
    said = "the agent sends them again, behind what waits; one that does not run does so when it starts"
    typer.echo(json.dumps({"marked": marked}) if as_json else f"{marked} marked: {said}")


def _fields(held: Held) -> dict[str, object]:
    from streams.codec import decode, name_of
    from streams.errors import Invalid

    try:
        record = name_of(held.value)
    except Invalid:
        record = None
    try:
        meta = decode(held.value)[1]
    except Invalid:
        meta = None
    return {
        "number": held.seq,
        "state": held.state,
        "written_at": datetime.fromtimestamp(held.at_ms / 1000, UTC).isoformat(timespec="seconds"),
        "record": record,
        "size_bytes": len(held.value),
        "code": held.code,
        "reason": held.reason,
        "event_id": str(meta.event_id) if meta else None,
        "tenant_id": str(meta.tenant_id) if meta else None,
        "aggregate_id": str(meta.aggregate_id) if meta else None,
        "occurred_at": meta.occurred_at.isoformat() if meta else None,
    }


def _event(held: Held) -> object:
    """What the fact says; what is sealed stays so (base64)."""
    import msgspec

    from streams.codec import decode
    from streams.errors import Invalid

    try:
        return msgspec.to_builtins(decode(held.value)[0], enc_hook=str)
    except Invalid as reason:
        return f"cannot be read: {reason}"


def _complain_about_missing(numbers: Sequence[int], found: Sequence[Held]) -> None:
    if missing := sorted(set(numbers) - {held.seq for held in found}):
        typer.echo(
            f"fw: the journal does not hold {', '.join(map(str, missing))} (any more): see `fw edge journal list`", err=True
        )
        raise typer.Exit(FAILED)


def _look(state_dir: Path, work: Callable[[JournalView], T]) -> T:
    from edge_agent.journal_view import JournalView, NoJournal

    try:
        with JournalView.opened(state_dir) as view:
            return work(view)
    except NoJournal as error:
        typer.echo(f"fw: {error}", err=True)
        raise typer.Exit(FAILED) from None
