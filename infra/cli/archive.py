"""`fw archive`: history in object storage: what is there, close what is open, check it, delete what is old."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import DEFAULT_DATA_DIR, DataDir
from infra.embedded.errors import FAILED

if TYPE_CHECKING:
    from streams.archive.check import Finding
    from streams.archive.manifest import Manifest
    from streams.archive.objects import Objects
    from streams.topics import Topics

app = typer.Typer(name="archive", help="History in object storage: status, flush, verify, prune.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One line of JSON.")]


@app.command()
def status(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """What the archive has of every topic, and what only the log has.

    Examples:

      fw archive status

      FW_ARCHIVE_URL=s3://bucket/frameworks fw archive status --json
    """
    _run(_status(data_dir, as_json))


@app.command()
def flush(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    accept_gap: Annotated[
        bool, typer.Option("--accept-gap", help="Write down what the log deleted before it was archived, and go on behind it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Archive everything up to where the log ends now; does not wait for a range to be large or old.

    Examples:

      fw archive flush && rsync -a data/archive/ backup:/archive/
    """
    _run(_flush(data_dir, accept_gap, as_json))


@app.command()
def verify(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Read every object again: checksums, records, and that ranges follow one another. Exit code 1: something is wrong.

    Examples:

      fw archive verify

      FW_ARCHIVE_URL=/mnt/backup/archive fw archive verify --json
    """
    _run(_verify(data_dir, as_json))


@app.command()
def prune(
    topic: Annotated[str | None, typer.Option(help="Such as fw.samples. Decisions are never deleted.")] = None,
    older_than: Annotated[str | None, typer.Option(metavar="AGE", help="Such as 90d or 12h.")] = None,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Objects that no manifest names, if they are older than a day.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, only say what would be deleted.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Delete whole ranges of one topic whose every record is older, from the oldest on. Says first what it would do.

    Examples:

      fw archive prune --topic fw.samples --older-than 90d

      fw archive prune --topic fw.samples --older-than 90d --yes

      fw archive prune --orphans --yes
    """
    if orphans == (topic is not None or older_than is not None) or (topic is None) != (older_than is None):
        raise typer.BadParameter("give --topic and --older-than, or --orphans")
    _run(_prune_orphans(data_dir, yes) if orphans else _prune(data_dir, topic or "", age(older_than or ""), yes))


def age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([dh])", text)
    if match is None:
        raise typer.BadParameter(f"an age looks like 90d or 12h, not {text!r}", param_hint="--older-than")
    return timedelta(days=int(match[1])) if match[2] == "d" else timedelta(hours=int(match[1]))


def _run(work: Coroutine[Any, Any, None]) -> None:
    from aiokafka.errors import KafkaError

    from streams.archive.errors import ArchiveError
    from streams.settings import SettingsError

    try:
        asyncio.run(work)
    except (ArchiveError, SettingsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from None
    except KafkaError as error:
        typer.echo(f"Kafka does not answer: {error!r}. `fw status` says whether it runs.", err=True)
        raise typer.Exit(FAILED) from None


def opened(data_dir: Path) -> tuple[Objects, Topics]:
    """The archive of an installation that may not be running. Raises ArchiveUnreachable."""
    from streams.archive.errors import ArchiveUnreachable
    from streams.archive.objects import Objects
    from streams.settings import Reader, stack_file
    from streams.topics import Topics

    if (
        not data_dir.is_dir() and "FW_ARCHIVE_URL" not in os.environ
    ):  # or a slip of the pen would make an empty archive, and praise it
        raise ArchiveUnreachable(f"{data_dir} is no directory: name that of the platform with --data-dir, or set FW_ARCHIVE_URL.")
    url = Reader(os.environ, stack_file(data_dir)).text("FW_ARCHIVE_URL", "archive", str(data_dir.resolve() / "archive"))
    return Objects(url), Topics(os.environ.get("FW_TOPIC_PREFIX", ""))


async def _status(data_dir: Path, as_json: bool) -> None:
    from streams.archive.archiver import Archiver, archived_topics
    from streams.archive.chain import load_chains
    from streams.archive.check import contents
    from streams.archive.manifest import when
    from streams.settings import SettingsError, read_settings

    objects, topics = opened(data_dir)
    lag = dict[str, int]()
    try:
        settings = read_settings({**os.environ, "FW_DATA_DIR": str(data_dir)})
        archiver = Archiver(objects, settings.kafka, archived_topics(topics), settings.archive_range_seconds, 1 << 20)
        for part in await archiver.seen():
            lag[part.topic.name] = lag.get(part.topic.name, 0) + part.open_records
    except SettingsError:
        pass  # nothing runs here: the archive alone is shown
    rows = list[dict[str, object]]()
    for topic in archived_topics(topics):
        chains = (await load_chains(objects, topic.name)).values()
        there = await contents(objects, f"{topic.name}/")
        oldest = [ms for c in chains if (ms := (await c.manifest(c.firsts[0])).first_appended_ms) is not None]
        newest = [ms for c in chains if (ms := (await c.manifest(c.firsts[-1])).last_appended_ms) is not None]
        rows.append(
            {
                "topic": topic.name,
                "partitions": len(chains),
                "ranges": there.ranges,
                "bytes": sum(there.data.values()),
                "from": when(min(oldest)).isoformat() if oldest else None,
                "to": when(max(newest)).isoformat() if newest else None,
                "only_on_the_log": lag.get(topic.name),
            }
        )
    if as_json:
        typer.echo(json.dumps({"archive": objects.name, "topics": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("topic", "partitions", "ranges", "bytes", "from", "to", "only on the log", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            *("" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row.values())
        )
    console = Console(highlight=False)
    console.print(f"archive in {objects.name}", markup=False, soft_wrap=True)
    console.print(table)


async def _flush(data_dir: Path, accept_gap: bool, as_json: bool) -> None:
    from infra.processes.archive import archiver
    from streams.settings import read_settings
    from streams.telemetry import configure_logs

    configure_logs("fw", "error")
    worker = archiver(read_settings({**os.environ, "FW_DATA_DIR": str(data_dir)}))
    closed = list["Manifest"]()

    def said(manifest: Manifest) -> None:
        closed.append(manifest)
        if not as_json:
            typer.echo(
                f"{manifest.topic}/{manifest.partition}: {manifest.first} to {manifest.end}, {manifest.records} records", err=True
            )

    ends = await worker.flush(accept_gap=accept_gap, closed=said)
    if as_json:
        positions = dict[str, dict[int, int]]()
        for tp, end in ends.items():
            positions.setdefault(tp.topic, {})[tp.partition] = end
        typer.echo(json.dumps({"archive": worker.objects.name, "ranges": len(closed), "positions": positions}))
        return
    records = sum(m.records for m in closed)
    typer.echo(f"{records:,} records in {len(closed)} new ranges; everything up to now is in {worker.objects.name}")


async def _verify(data_dir: Path, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from streams.archive.check import check, contents

    objects, _ = opened(data_dir)
    there = await contents(objects)
    found = list["Finding"]()
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as progress:
        bar = progress.add_task("reading every object again", total=there.ranges)
        found = [finding async for finding in check(objects, there, lambda _: progress.advance(bar))]
    faults = [finding for finding in found if finding.kind != "lost"]
    if as_json:
        listed = [{"kind": f.kind, "path": f.path, "sentence": f.sentence} for f in found]
        typer.echo(json.dumps({"archive": objects.name, "ranges": there.ranges, "ok": not faults, "findings": listed}))
    else:
        for finding in found:
            typer.echo(f"{finding.kind}: {finding.path}: {finding.sentence}")
        outcome = (
            f"{len(faults)} faults" if faults else "all are as they were written" if there.ranges else "nothing is archived yet"
        )
        typer.echo(f"{there.ranges} ranges in {objects.name}: {outcome}")
    if faults:
        raise typer.Exit(FAILED)


async def _prune(data_dir: Path, name: str, old: timedelta, yes: bool) -> None:
    from streams.archive.archiver import archived_topics
    from streams.archive.manifest import when
    from streams.archive.prune import delete_range, old_ranges

    objects, topics = opened(data_dir)
    topic = next((t for t in archived_topics(topics) if t.name in (name, topics.prefix + name)), None)
    if topic is None:
        names = ", ".join(t.name for t in archived_topics(topics) if t.retention_ms > 0)
        raise typer.BadParameter(f"no topic {name!r} is archived; those that may be pruned: {names}", param_hint="--topic")
    ranges = await old_ranges(objects, topic, datetime.now(UTC) - old)
    for manifest in ranges:
        until = when(manifest.last_appended_ms).isoformat() if manifest.last_appended_ms is not None else "no record"
        typer.echo(f"{manifest.path}: offsets {manifest.first} to {manifest.end}, {manifest.object_bytes} bytes, until {until}")
        if yes:
            await delete_range(objects, manifest)
    total = sum(m.object_bytes for m in ranges)
    typer.echo(
        f"{'deleted' if yes else 'would delete'} {len(ranges)} ranges, {total:,} bytes" + ("" if yes else "; do it with --yes")
    )


async def _prune_orphans(data_dir: Path, yes: bool) -> None:
    from streams.archive.check import orphans

    objects, _ = opened(data_dir)
    paths = await orphans(objects, datetime.now(UTC) - timedelta(days=1))
    for path in paths:
        typer.echo(path)
        if yes:
            await objects.delete(path)
    typer.echo(
        f"{'deleted' if yes else 'would delete'} {len(paths)} objects" + ("" if yes or not paths else "; do it with --yes")
    )
