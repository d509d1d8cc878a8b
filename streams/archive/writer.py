"""Closes ranges: what the log has between two offsets becomes a data object and its manifest.

Invariants: the data object is there before the manifest that names it; a manifest once written is never written again. So a
crash leaves at most an object that nobody names, and of two workers that close the same range one wins and the other goes on
behind it.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.archive.chain import Chain
from streams.archive.container import FileWriter
from streams.archive.errors import ArchiveDamaged
from streams.archive.manifest import Manifest, object_name
from streams.archive.objects import Objects

FETCH_RECORDS = 5000


class LogMovedOn(Exception):
    """The log deleted what was about to be archived."""


async def close_range(objects: Objects, log: AIOKafkaConsumer, chain: Chain, end: int, range_bytes: int) -> Manifest | None:
    """Archives from the chain's end up to `end`, or less when that is more than `range_bytes`. In this order:

    1. read the range, read_committed
    2. put the data object
    3. put the manifest, which makes it count
    None: another worker has closed a range there; the chain then ends behind it. Raises LogMovedOn, and what the storage raises.
    `end` is to be a read_committed end; the consumer is to be assigned to the partition, and nobody else may use it.
    """
    before = chain.end
    await chain.extend()
    if chain.end > before:
        return None
    file, reached = await _read(log, chain, end, range_bytes)
    data = await asyncio.to_thread(file.close) if file.records else b""
    digest = (await asyncio.to_thread(sha256, data)).hexdigest() if data else None
    manifest = Manifest(
        topic=chain.tp.topic,
        partition=chain.tp.partition,
        first=chain.end,
        end=reached,
        records=file.records,
        first_appended_ms=file.first_appended_ms,
        last_appended_ms=file.last_appended_ms,
        schema_ids=tuple(sorted(file.schema_ids)),
        object=object_name(chain.end, digest) if digest else None,
        object_bytes=len(data),
        raw_bytes=file.raw_bytes,
        sha256=digest,
    )
    if manifest.object_path is not None:
        await _put_object(objects, manifest.object_path, data)
    return await add(objects, chain, manifest)


async def _put_object(objects: Objects, path: str, data: bytes) -> None:
    """There already: by a worker that died before its manifest, or lives beside us. The name says that the bytes are these."""
    if not await objects.put(path, data):
        there = await objects.get(path)
        if there != data:
            raise ArchiveDamaged(
                f"object {path} is there already, with other bytes than its name says. No range counts on it: delete it, and "
                "the worker goes on."
            )


async def add(objects: Objects, chain: Chain, manifest: Manifest) -> Manifest | None:
    """Makes a range count. None: another's was first."""
    if await objects.put(manifest.path, manifest.encoded()):
        chain.append(manifest)
        return manifest
    there = await chain.manifest(manifest.first)
    chain.append(there)
    return there if there == manifest else None  # ours, when the storage answered the first attempt too late


async def _read(log: AIOKafkaConsumer, chain: Chain, end: int, range_bytes: int) -> tuple[FileWriter, int]:
    """The file, and the offset that it reaches."""
    tp = TopicPartition(*chain.tp)
    log.seek(tp, chain.end)
    file = FileWriter(chain.tp, chain.end)
    try:
        while await log.position(tp) < end:
            fetched = await log.getmany(tp, timeout_ms=100, max_records=FETCH_RECORDS)
            records = [record for record in fetched.get(tp, ()) if record.offset < end]
            if records:
                taken = await asyncio.to_thread(file.add, records, range_bytes)
                if file.raw_bytes >= range_bytes:
                    return file, records[taken - 1].offset + 1
    except OffsetOutOfRangeError:
        raise LogMovedOn from None
    return file, end


async def accept_loss(objects: Objects, chain: Chain, log_begins: int) -> Manifest | None:
    """Writes down that the log deleted what was not archived, so that the archive can go on behind it."""
    lost = Manifest(
        topic=chain.tp.topic,
        partition=chain.tp.partition,
        first=chain.end,
        end=log_begins,
        records=0,
        first_appended_ms=None,
        last_appended_ms=None,
        schema_ids=(),
        object=None,
        object_bytes=0,
        raw_bytes=0,
        sha256=None,
        is_lost=True,
    )
    return await add(objects, chain, lost)
