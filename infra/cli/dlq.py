"""`fw dlq`: dead letters, what they say, and what becomes of them."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from infra.embedded.errors import FAILED

if TYPE_CHECKING:
    from projections.letters import Filter, Letter, LetterBox

app = typer.Typer(name="dlq", help="Dead letters: records that could not be read. docs/dead-letters.md", no_args_is_help=True)

Letters = Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="projection/topic/partition/offset, as listed.")]
Projection = Annotated[
    str | None, typer.Option(help="For whom it meant nothing: a projection, or `commands` (the command worker).")
]
TopicName = Annotated[str | None, typer.Option("--topic", help="Where the record stood.")]
PartitionNumber = Annotated[int | None, typer.Option("--partition", min=0)]
Offset = Annotated[int | None, typer.Option("--offset", min=0, help="With --projection, --topic and --partition: one letter.")]
Since = Annotated[str | None, typer.Option(metavar="AGE|TIME", help="Buried since: 30m, 2h, 7d, or 2026-11-21T04:00:00Z.")]
Everything = Annotated[bool, typer.Option("--all", help="Also those that were retried or dropped.")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON a letter.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of a running `fw up`; FW_DATA_DIR, else ./data.")]
T = TypeVar("T")
AGES = {"m": "minutes", "h": "hours", "d": "days"}
SHOWN_BYTES = 4096


@app.command("list")
def list_(
    projection: Projection = None,
    topic: TopicName = None,
    partition: PartitionNumber = None,
    since: Since = None,
    everything: Everything = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List dead letters that wait for somebody.

    Examples:

    \b
      fw dlq list
      fw dlq list --projection streams --since 2h
      fw dlq list --all --json
    """
    which = _filter(None, projection, topic, partition, None, since)
    found = [x for x in _run(data_dir, lambda box: box.letters(which)) if everything or x.state == "buried"]
    if as_json:
        for letter in found:
            typer.echo(json.dumps(_fields(letter)))
        return
    if not found:
        typer.echo("No dead letters." if everything else "No dead letters wait. `--all` shows those that were settled, too.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("letter", "buried", "record", "state", "reason"):
        table.add_column(heading, overflow="fold")
    for letter in found:
        table.add_row(str(letter.id), f"{letter.buried_at:%Y-%m-%d %H:%M:%S}Z", letter.record, letter.state, letter.reason)
    Console().print(table)
    typer.echo(f"{len(found)} letters. `fw dlq show LETTER` shows all of one.")


@app.command()
def show(letters: Letters = None, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show everything about letters: the reason, the headers, what can be read, and the bytes.

    Example: fw dlq show streams/fw.facts/3/1042
    """
    which = _filter(letters, None, None, None, None, None)
    if not which.ids:
        raise typer.BadParameter("name a letter: the first column of `fw dlq list`")
    found = _run(data_dir, lambda box: box.letters(which))
    _complain_about_missing(which, found)
    for letter in found:
        if as_json:
            typer.echo(json.dumps({**_fields(letter), "headers": _headers(letter), "value_hex": (letter.value or b"").hex()}))
        else:
            typer.echo(_page(letter))


@app.command()
def retry(
    letters: Letters = None,
    projection: Projection = None,
    topic: TopicName = None,
    partition: PartitionNumber = None,
    since: Since = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Put records that can be read now onto their topic again: the same bytes, so the same event ids.

    Whoever has the event already is not changed by it. What cannot be read by this version either stays a letter (exit code 1).

    Examples:

    \b
      fw dlq retry streams/fw.facts/3/1042
      fw dlq retry --projection streams --since 2h
    """
    which = _narrowed(_filter(letters, projection, topic, partition, None, since), "retry")

    async def run(box: LetterBox) -> tuple[Sequence[Letter], Sequence[Letter], dict[str, str]]:
        found = await box.letters(which)
        retried, refused = await box.retry([x for x in found if x.state == "buried"], getpass.getuser())
        return found, retried, {str(where): why for where, why in refused.items()}

    found, retried, refused = _run(data_dir, run)
    _complain_about_missing(which, found)
    if as_json:
        typer.echo(json.dumps({"retried": [str(x.id) for x in retried], "refused": refused}))
    else:
        for where, why in refused.items():
            typer.echo(f"fw: {where} still cannot be read: {why}", err=True)
        typer.echo(f"{len(retried)} retried, {len(refused)} still unreadable")
    if refused:
        raise typer.Exit(FAILED)


@app.command()
def drop(
    reason: Annotated[str, typer.Option(help="Why nobody needs it any more. It is kept.")],
    letters: Letters = None,
    projection: Projection = None,
    topic: TopicName = None,
    partition: PartitionNumber = None,
    offset: Offset = None,
    since: Since = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Settle letters without retrying them. Who, when and why is kept; the bytes stay as long as the topic keeps them.

    Also the only way past a billing fact that is lost for good and that a projection stands still at: name its position.

    Examples:

    \b
      fw dlq drop streams/fw.facts/3/1042 --reason "written by hand, ticket 17"
      fw dlq drop --projection ingests --topic fw.facts --partition 3 --offset 99 --reason "torn disk, credited by hand"
    """
    if not reason.strip():
        raise typer.BadParameter("say why: --reason is kept as the trace of what was given up")
    which = _narrowed(_filter(letters, projection, topic, partition, offset, since), "drop")

    async def run(box: LetterBox) -> Sequence[Letter]:
        found = await box.letters(which)
        dropped = await box.drop([x for x in found if x.state == "buried"], getpass.getuser(), reason)
        if found:
            return dropped
        return [await box.open_halt(where, getpass.getuser(), reason) for where in sorted(which.ids)]

    dropped = _run(data_dir, run)
    if as_json:
        typer.echo(json.dumps({"dropped": [str(x.id) for x in dropped]}))
    else:
        typer.echo(f"{len(dropped)} dropped: {reason}")


def _filter(
    letters: list[str] | None,
    projection: str | None,
    topic: str | None,
    partition: int | None,
    offset: int | None,
    since: str | None,
) -> Filter:
    from projections.letters import Filter, LetterId, NotPossible

    try:
        ids = frozenset(map(LetterId.parse, letters or ()))
    except NotPossible as error:
        raise typer.BadParameter(str(error)) from None
    if offset is not None:
        if projection is None or topic is None or partition is None:
            raise typer.BadParameter("--offset needs --projection, --topic and --partition beside it")
        ids |= {LetterId(projection, topic, partition, offset)}
    return Filter(projection, topic, partition, _time(since) if since else None, ids)


def _time(text: str) -> datetime:
    if text[:-1].isdecimal() and text[-1:] in AGES:
        return datetime.now(UTC) - timedelta(**{AGES[text[-1]]: int(text[:-1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--since is an age (30m, 2h, 7d) or a time (2026-11-21T04:00:00Z), not {text!r}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _narrowed(which: Filter, what: str) -> Filter:
    if which.is_everything:
        raise typer.BadParameter(f"say which letters to {what}: name them, or give --projection, --topic, --partition or --since")
    return which


def _complain_about_missing(which: Filter, found: Sequence[Letter]) -> None:
    if missing := which.ids - {letter.id for letter in found}:
        typer.echo(f"fw: there is no letter {', '.join(map(str, sorted(missing)))}: see `fw dlq list --all`", err=True)
        raise typer.Exit(FAILED)


def _run(data_dir: Path | None, work: Callable[[LetterBox], Awaitable[T]]) -> T:
    """Does it with Kafka and PostgreSQL of the stack; what goes wrong there becomes a sentence and exit code 1."""
    import asyncpg
    from aiokafka.errors import KafkaError

    from projections.letters import LetterBox, NotPossible
    from streams.settings import Reader, SettingsError, stack_file
    from streams.topics import Topics

    async def connected(kafka: str, postgres: str) -> T:
        db = await asyncpg.create_pool(postgres, min_size=1, max_size=2)
        try:
            return await work(LetterBox(kafka, Topics(os.environ.get("FW_TOPIC_PREFIX", "")), db))
        finally:
            await db.close()

    try:
        reader = Reader(os.environ, stack_file(data_dir or Path(os.environ.get("FW_DATA_DIR", "data"))))
        kafka = reader.text("FW_KAFKA_BOOTSTRAP", "kafka")
        postgres = reader.url("FW_POSTGRES_URL", "postgres", ("postgresql",))
        if reader.problems:
            raise SettingsError("\n".join(reader.problems))
        return asyncio.run(connected(kafka, postgres))
    except (NotPossible, SettingsError) as error:
        sentence = str(error)
    except (OSError, KafkaError, asyncpg.PostgresError) as error:
        sentence = f"Kafka or PostgreSQL does not answer ({error!r}): is the stack running? `fw doctor` says more"
    typer.echo(f"fw: {sentence}", err=True)
    raise typer.Exit(FAILED)


def _fields(letter: Letter) -> dict[str, object]:
    meta = letter.meta
    return {
        "letter": str(letter.id),
        "projection": letter.id.projection,
        "topic": letter.id.topic,
        "partition": letter.id.partition,
        "offset": letter.id.offset,
        "reason": letter.reason,
        "buried_at": letter.buried_at.isoformat(),
        "state": letter.state,
        "settled_at": letter.settled_at.isoformat() if letter.settled_at else None,
        "settled_by": letter.settled_by,
        "settled_reason": letter.settled_reason,
        "record": letter.record or None,
        "event_id": str(meta.event_id) if meta else None,
        "tenant_id": str(meta.tenant_id) if meta else None,
        "aggregate_id": str(meta.aggregate_id) if meta else None,
        "occurred_at": meta.occurred_at.isoformat() if meta else None,
    }


def _headers(letter: Letter) -> dict[str, str]:
    return {name: text.decode(errors="replace") for name, text in letter.headers}


def _page(letter: Letter) -> str:
    """Everything about a letter, for a person."""
    lines = [f"{name:14} {value}" for name, value in _fields(letter).items() if value is not None]
    lines += [f"header         {name}: {text}" for name, text in _headers(letter).items()]
    if letter.value is None:
        lines.append("bytes          none: the record had no value, or it was too large to be kept beside its headers")
        return "\n".join([*lines, ""])
    lines.append(f"bytes          {len(letter.value)}")
    shown = letter.value[:SHOWN_BYTES]
    for at in range(0, len(shown), 16):
        row = shown[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"  {at:06x}  {row.hex(' '):47}  {text}")
    if len(letter.value) > SHOWN_BYTES:
        lines.append(f"  … {len(letter.value) - SHOWN_BYTES} more; `--json` has all of them")
    return "\n".join([*lines, ""])
