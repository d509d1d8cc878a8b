"""Makes an installation from a backup: the log with its offsets as they were, the archive, secrets and keys. All else is rebuilt.

Invariants
* Only an empty place is restored to, and it is there as a whole or not at all: everything is made in a directory beside it,
  which gets its name last.
* Positions stay valid: cursors, the journal's references and those that clients hold (refill.py).
* Nothing is decided twice. The command topic begins empty: a command whose answer is in the backup is answered from the decisions
  when it is sent again, and one that is not was never decided.
* Facts that are older than the log keeps them are not written to the log, where retention would delete them while they are
  being read: the log begins behind them, and the archive has them (`streams/archive/history.py` reads both as one).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from infra import kafka
from infra.backup.contents import ARCHIVE, Backup, backups, get_small, secret_key_id
from infra.backup.copy import copy, ranges_until
from infra.backup.refill import Refill, writer
from infra.embedded.errors import IN_USE, CannotStart
from infra.kafka.cluster import admin
from projections.platform import migrate
from streams.archive.chain import load_chains
from streams.archive.files import ArchiveReader
from streams.archive.manifest import Manifest
from streams.archive.objects import Objects
from streams.faust_batches.fetched import TP
from streams.kafka import reader
from streams.topics import Topic, Topics

PARTITIONS_AT_ONCE: Final = 4
Ranges = Mapping[tuple[str, int], list[Manifest]]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the log and the key tables are restored to."""

    kafka: str
    postgres: str
    replication_factor: int = 1


@dataclass(slots=True)
class Progress:
    """Told how far it is; each takes a number of records."""

    begun: Callable[[str, int], None]
    advanced: Callable[[int], None]


async def chosen(source: Objects, name: str | None) -> Backup:
    """The newest backup, or the one of that name; with the newest tables of keys, for only those are kept."""
    every = await backups(source)
    found = next((b for b in every if b.made_at == name), None) if name else every[-1]
    if found is None:
        raise CannotStart(f"there is no backup {name!r} in {source.name}; there are {', '.join(b.made_at for b in every)}.")
    if found is not every[-1]:
        import msgspec

        return msgspec.structs.replace(found, keys=every[-1].keys)
    return found


async def copy_archive(backup: Backup, source_url: str, archive_url: str, progress: Progress) -> Ranges:
    """The archive in its new place; all that the log is made from."""
    source = Objects(f"{source_url.rstrip('/')}/{ARCHIVE}")
    ranges = await ranges_until(source, backup.positions)
    progress.begun("copying the archive", sum(map(len, ranges.values())))
    await copy(source, Objects(archive_url), ranges, lambda _: progress.advanced(1))
    return ranges


async def restore_log(
    servers: Servers, topics: Topics, backup: Backup, ranges: Ranges, archive_url: str, progress: Progress
) -> Mapping[str, int]:
    """Writes every partition; how many records of each topic the archive alone has. Raises CannotStart where the log has some."""
    await kafka.apply(servers.kafka, topics, kafka.Replication(servers.replication_factor))
    ends = reader(servers.kafka, "restore-ends")
    await ends.start()
    objects, of = Objects(archive_url), {topic.name: topic for topic in topics.all()}
    gate = asyncio.Semaphore(PARTITIONS_AT_ONCE)
    try:
        await _require_empty(ends, topics)
        begins = {key: log_begin(of[key[0]], manifests, time.time()) for key, manifests in ranges.items()}
        written = [m for key, manifests in ranges.items() for m in manifests if m.first >= begins[key]]
        progress.begun("writing the log", sum(m.records for m in written))
        with ThreadPoolExecutor(2) as threads:
            archive = ArchiveReader(objects, threads)

            async def one(topic: Topic, partition: int, manifests: list[Manifest], begin: int) -> None:
                async with gate, _refill(servers.kafka, topic, partition, ends) as work:
                    chain = (await load_chains(objects, topic.name))[partition]
                    await work.fill(begin, manifests[-1].last_appended_ms or 0)
                    for manifest in manifests:
                        if manifest.first < begin or manifest.is_lost:
                            continue
                        async for batch in archive.read(chain, manifest.first, manifest.end):
                            await work.write(batch)
                            progress.advanced(len(batch))
                    await work.fill(manifests[-1].end, manifests[-1].last_appended_ms or 0)

            async def nothing(topic: Topic, partition: int, end: int) -> None:
                async with gate, _refill(servers.kafka, topic, partition, ends) as work:
                    await work.fill(end, 0)

            async with asyncio.TaskGroup() as group:
                for (name, partition), manifests in ranges.items():
                    group.create_task(one(of[name], partition, manifests, begins[name, partition]))
                for name, ends_at in backup.empty_until.items():
                    for partition, end in ends_at.items():
                        begins[name, partition] = end
                        group.create_task(nothing(of[name], partition, end))
        await _forget(servers.kafka, {TP(*key): begin for key, begin in begins.items() if begin})
        await _require_ends(ends, backup)
    finally:
        await ends.stop()
    archive_only = dict[str, int]()
    for (name, partition), manifests in ranges.items():
        left_out = sum(m.records for m in manifests if m.first < begins[name, partition])
        archive_only[name] = archive_only.get(name, 0) + left_out
    return {name: records for name, records in archive_only.items() if records}


def log_begin(topic: Topic, manifests: Sequence[Manifest], now: float) -> int:
    """Where the restored log of a partition begins: at the first range that retention would not delete."""
    if topic.retention_ms < 0:
        return manifests[0].first
    oldest_ms = now * 1000 - topic.retention_ms
    young = (m.first for m in manifests if m.last_appended_ms is not None and m.last_appended_ms >= oldest_ms)
    return next(young, manifests[-1].end)


@contextlib.asynccontextmanager
async def _refill(bootstrap: str, topic: Topic, partition: int, ends: object) -> AsyncIterator[Refill]:
    plain, fillers = writer(bootstrap, None), writer(bootstrap, f"refill-{topic.name}-{partition}")
    try:
        await plain.start()
        await fillers.start()
        yield Refill(plain, fillers, ends, TopicPartition(topic.name, partition))
    finally:
        await asyncio.gather(plain.stop(), fillers.stop(), return_exceptions=True)


async def _require_empty(ends: object, topics: Topics) -> None:
    tps = [TopicPartition(t.name, p) for t in topics.all() for p in range(t.partitions)]
    found = await ends.end_offsets(tps)  # type: ignore[attr-defined]  # aiokafka has no types
    if used := sorted({tp.topic for tp, end in found.items() if end}):
        raise CannotStart(
            f"the log is not empty ({', '.join(used)}): a backup is restored to an empty platform only. Name other servers, "
            "another FW_TOPIC_PREFIX, or a new data directory.",
            IN_USE,
        )


async def _require_ends(ends: object, backup: Backup) -> None:
    cut = (*backup.positions.items(), *backup.empty_until.items())
    wanted = {TopicPartition(topic, p): end for topic, of in cut for p, end in of.items()}
    found = await ends.end_offsets([*wanted])  # type: ignore[attr-defined]  # aiokafka has no types
    if wrong := [tp for tp, end in wanted.items() if found[tp] != end]:
        raise CannotStart(
            f"{wrong[0].topic}/{wrong[0].partition} ends at {found[wrong[0]]}, not {wanted[wrong[0]]}: restore again."
        )


async def _forget(bootstrap: str, begins: Mapping[TP, int]) -> None:
    """The log's new beginnings, behind what only the archive has."""
    if begins:
        async with admin(bootstrap) as client:
            await client.delete_records(
                {TopicPartition(*tp): RecordsToDelete(before_offset=begin) for tp, begin in begins.items()}
            )


async def restore_keys(source: Objects, backup: Backup, postgres: str) -> None:
    """Wrapped keys and erasures, as they were. Reactors begin at the start of the log and destroy again what was erased since."""
    await migrate(postgres)
    connection = await asyncpg.connect(postgres)
    try:
        async with connection.transaction():
            for table, small in backup.keys.items():
                data = await get_small(source, small)
                if await connection.fetchval(f"SELECT EXISTS (SELECT FROM platform.{table})"):  # noqa: S608  our own name
                    raise CannotStart(f"platform.{table} is not empty: a backup is restored to an empty platform only.", IN_USE)
                columns = data.partition(b"\n")[0].decode().split(",")
                await connection.copy_to_table(
                    table, schema_name="platform", source=io.BytesIO(data), columns=columns, format="csv", header=True
                )
            await connection.execute("DELETE FROM platform.reactor_position")
    finally:
        await connection.close()


def require_secret_key(backup: Backup, secret_key: str) -> None:
    """Raises CannotStart: with another secret key no stream key and no credential of a node would be known any more."""
    if secret_key_id(bytes.fromhex(secret_key)) != backup.secret_key_id:
        raise CannotStart("FW_SECRET_KEY is not the one of this backup: set the one that the platform had, or leave it unset.")


def beside(data_dir: Path) -> Path:
    """Where a directory is made before it gets its name."""
    return data_dir.with_name(f"{data_dir.name}.restoring")


def require_empty_directory(data_dir: Path) -> None:
    """Raises CannotStart."""
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise CannotStart(f"{data_dir} is not empty: a backup is restored to a directory that is, or is not there yet.", IN_USE)


def give_name(data_dir: Path) -> None:
    if data_dir.exists():
        data_dir.rmdir()
    beside(data_dir).rename(data_dir)
