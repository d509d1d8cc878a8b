"""Takes a backup of a running platform."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import msgspec

from infra.backup.contents import ARCHIVE, KEY_TABLES, KEYS, SECRETS, Backup, Small, backups, put_small, secret_key_id
from infra.backup.copy import copy, ranges_until
from infra.processes.archive import archiver
from infra.supervisor.layout import Directory
from streams.archive.archiver import Archiver, archived_topics
from streams.archive.errors import ArchiveError
from streams.archive.manifest import Manifest
from streams.archive.objects import Objects
from streams.settings import Settings, authority_files


@dataclass(frozen=True, slots=True)
class Taken:
    backup: Backup
    ranges: int
    new_ranges: int


async def take(settings: Settings, target_url: str, begun: Callable[[int], None], copied: Callable[[Manifest], None]) -> Taken:
    """A backup of everything up to now. The order makes the cut consistent:

    1. archive facts, then decisions, each up to its end now: no fact is there whose decision is not
    2. copy what of the archive is not in the target yet
    3. copy secrets and keys: every key that step 1 could need was there before
    4. write the backup's manifest
    5. delete tables of keys that older backups left: what was erased since must be gone there, too
    """
    target = Objects(target_url)
    positions, empty_until = await _archive_up_to_now(settings)
    source = Objects(settings.archive_url)
    ranges = await ranges_until(source, positions)
    begun(sum(map(len, ranges.values())))
    new = await copy(source, Objects(f"{target_url.rstrip('/')}/{ARCHIVE}"), ranges, copied)
    secrets_file = Directory(settings.data_dir).secrets
    backup = Backup(
        made_at=f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%fZ}",
        topic_prefix=settings.topics.prefix,
        positions=positions,
        empty_until=empty_until,
        secrets=await put_small(target, SECRETS, secrets_file.read_bytes(), "json") if secrets_file.exists() else None,
        secret_key_id=secret_key_id(settings.secret_key),
        keys=await _keys(settings, target),
        authority=await _authority(settings, target),
    )
    if not await target.put(backup.path, msgspec.json.format(msgspec.json.encode(backup), indent=1)):
        raise ArchiveError(
            f"{backup.path} is there already in {target.name}: another backup was made in this very moment. Try again."
        )
    await _forget_old_keys(target)
    return Taken(backup, sum(map(len, ranges.values())), new)


async def _authority(settings: Settings, target: Objects) -> tuple[Small, Small] | None:
    """Without it, every node would have to be enrolled anew after a restoration."""
    files = authority_files(settings.data_dir)
    if settings.authority != files:
        return None
    certificate, key = [await put_small(target, SECRETS, file.read_bytes(), "pem") for file in files]
    return certificate, key


Positions = dict[str, dict[int, int]]


async def _archive_up_to_now(settings: Settings) -> tuple[Positions, Positions]:
    """How far the archive reaches, and of partitions that it has nothing of, how far the log does."""
    decisions = settings.topics.decisions
    others = [t for t in archived_topics(settings.topics) if t != decisions]
    worker, positions, empty_until = archiver(settings), Positions(), Positions()
    for topics in (others, [decisions]):
        part = Archiver(worker.objects, settings.kafka, topics, worker.range_seconds, worker.range_bytes)
        for tp, end in (await part.flush()).items():
            found = positions if part.parts[tp].chain.firsts else empty_until
            if end:
                found.setdefault(tp.topic, {})[tp.partition] = end
    return positions, empty_until


async def _keys(settings: Settings, target: Objects) -> dict[str, Small]:
    connection = await asyncpg.connect(settings.postgres_url)
    try:
        kept = {}
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for table in KEY_TABLES:
                rows = io.BytesIO()
                await connection.copy_from_table(table, schema_name="platform", output=rows, format="csv", header=True)
                kept[table] = await put_small(target, KEYS, rows.getvalue(), "csv")
        return kept
    finally:
        await connection.close()


async def _forget_old_keys(target: Objects) -> None:
    newest = (await backups(target))[-1]
    needed = {small.path for small in newest.keys.values()}
    async for listed in target.list(KEYS):
        if listed.path not in needed:
            await target.delete(listed.path)
