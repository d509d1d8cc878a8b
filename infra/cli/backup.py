"""`fw backup` and `fw restore`: the platform's truth, copied and brought back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import DEFAULT_DATA_DIR, DataDir, PortBase
from infra.embedded.errors import FAILED

if TYPE_CHECKING:
    from infra.backup.contents import Backup
    from infra.backup.take import Taken

Json = Annotated[bool, typer.Option("--json", help="One line of JSON at the end, and nothing else.")]


def backup(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A folder, or an s3://, gs:// or az:// URL.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Json = False,
) -> None:
    """Copy the platform's truth while it runs: the log up to now, the archive, secrets and wrapped keys.

    A second backup to the same target copies only what is new. The master key of personal data is not in it: keep it elsewhere,
    for whoever has both can read personal data. Everything else is computed from what is in it.

    Examples:

      fw backup /mnt/backup/frameworks

      fw backup s3://bucket/frameworks --json
    """
    from aiokafka.errors import KafkaError
    from asyncpg import PostgresError

    from streams.archive.errors import ArchiveError
    from streams.settings import SettingsError

    try:
        taken = asyncio.run(_take(target, data_dir, as_json))
    except (ArchiveError, SettingsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from None
    except (KafkaError, PostgresError, OSError) as error:
        typer.echo(f"A server does not answer: {error!r}. `fw status` says what runs.", err=True)
        raise typer.Exit(FAILED) from None
    if as_json:
        line = {"backup": taken.backup.made_at, "ranges": taken.ranges, "new_ranges": taken.new_ranges}
        typer.echo(json.dumps({**line, "positions": taken.backup.positions}))
        return
    typer.echo(f"backup {taken.backup.made_at}: {taken.ranges} ranges of the log, {taken.new_ranges} of them new")
    if taken.backup.keys:
        typer.echo("The master key (master.key in the data directory, unless set otherwise) is not in it: keep a copy elsewhere.")


async def _take(target: str, data_dir: Path, as_json: bool) -> Taken:
    from rich.console import Console
    from rich.progress import Progress

    from infra.backup.take import take
    from streams.settings import read_settings
    from streams.telemetry import configure_logs

    configure_logs("fw", "error")
    settings = read_settings({**os.environ, "FW_DATA_DIR": str(data_dir)})
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as progress:
        bar = progress.add_task("copying the archive", total=None)
        return await take(settings, target, lambda total: progress.update(bar, total=total), lambda _: progress.advance(bar))


def restore(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Where `fw backup` copied to.")],
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="FW_DATA_DIR", help="Empty, or not there yet.")
    ] = DEFAULT_DATA_DIR,
    port_base: PortBase = 0,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="An older backup, by the name that `fw backup` said.")] = None,
    master_key_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Copied to the new directory as its master.key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a platform from a backup, in an empty data directory. `fw up` then starts it, and its projections are rebuilt.

    Every record of the log gets the offset that it had, so cursors and positions that clients hold stay valid.

    Examples:

      fw restore /mnt/backup/frameworks --data-dir data --master-key-file /safe/master.key

      fw restore s3://bucket/frameworks --data-dir drill --port-base 1000
    """
    from aiokafka.errors import KafkaError
    from asyncpg import PostgresError

    from infra.backup.refill import NotAsBefore
    from infra.backup.restore import beside
    from streams.archive.errors import ArchiveError
    from streams.errors import Transient

    data_dir = data_dir.resolve()
    try:
        with first_of_group():
            made, archive_only = _restore(source, data_dir, port_base, at, master_key_file, as_json)
    except (ArchiveError, Transient, NotAsBefore) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from None
    except (KafkaError, PostgresError) as error:
        typer.echo(f"A server does not take it: {error!r}. Nothing was restored; try again.", err=True)
        raise typer.Exit(FAILED) from None
    finally:
        shutil.rmtree(beside(data_dir), ignore_errors=True)  # nothing is left half done
    if as_json:
        typer.echo(json.dumps({"backup": made.made_at, "data_dir": str(data_dir), "archive_only": archive_only}))
        return
    typer.echo(f"restored {made.made_at} to {data_dir}. `fw up --data-dir {data_dir}` starts it.")
    for topic, records in archive_only.items():
        typer.echo(
            f"{records:,} records of {topic} are older than the log keeps them and are in the archive alone: once it runs, "
            "`fw rebuild` brings the projections that read them up from there."
        )
    if made.keys and master_key_file is None:
        typer.echo(
            "Personal data opens again once the master key is there: master.key in the data directory, or FW_MASTER_KEY_FILE."
        )


@contextmanager
def first_of_group() -> Iterator[None]:
    """Of failures that happened at once, the first: one is what a person can do something about."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def _restore(
    source_url: str, data_dir: Path, port_base: int, at: str | None, master_key_file: Path | None, as_json: bool
) -> tuple[Backup, dict[str, int]]:
    from rich.console import Console
    from rich.progress import Progress

    from infra.backup import restore as steps
    from infra.backup.contents import get_small
    from infra.backup.servers import servers
    from infra.supervisor.layout import Directory, Ports
    from infra.supervisor.leftovers import MARK, end_leftovers
    from infra.supervisor.parts import environment
    from infra.supervisor.state import read_secrets, write_private
    from streams.archive.objects import Objects
    from streams.settings import authority_files
    from streams.telemetry import configure_logs
    from streams.topics import Topics

    configure_logs("fw", "error")
    steps.require_empty_directory(data_dir)
    source, env = Objects(source_url), environment()
    made = asyncio.run(steps.chosen(source, at))
    topics = Topics(made.topic_prefix)
    work = Directory(steps.beside(data_dir))
    end_leftovers(work.root, lambda sentence: typer.echo(sentence, err=True))  # servers of an attempt that was killed
    shutil.rmtree(work.root, ignore_errors=True)
    work.root.mkdir(parents=True)
    os.environ[MARK] = str(work.root)  # inherited by what is started from here
    archive_url = env.get("FW_ARCHIVE_URL") or str(work.root / "archive")
    if made.secrets is not None:
        write_private(work.secrets, asyncio.run(get_small(source, made.secrets)).decode())
    for file, small in zip(authority_files(work.root), made.authority or (), strict=False):
        write_private(file, asyncio.run(get_small(source, small)).decode())
    if master_key_file is not None:
        write_private(work.root / "master.key", master_key_file.read_text())
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as bars:
        current = bars.add_task("reading the backup", total=None)
        progress = steps.Progress(
            lambda what, total: bars.reset(current, description=what, total=total), lambda n: bars.advance(current, n)
        )
        ranges = asyncio.run(steps.copy_archive(made, source_url, archive_url, progress))
        secrets = read_secrets(work)
        steps.require_secret_key(made, env.get("FW_SECRET_KEY") or secrets.secret_key)
        with servers(work, Ports(port_base), secrets, env, lambda _: None) as there:
            left_out = asyncio.run(steps.restore_log(there, topics, made, ranges, archive_url, progress))
            asyncio.run(steps.restore_keys(source, made, there.postgres))
    steps.give_name(data_dir)
    return made, dict(left_out)
