"""Records out of the archive's files.

Invariant: a file is checked as a whole, by its checksum, before any record of it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from streams.archive.chain import Chain
from streams.archive.container import Archived, RowReader, blocks
from streams.archive.errors import ArchiveDamaged, HistoryGap
from streams.archive.manifest import MEND, Manifest
from streams.archive.objects import Objects
from streams.faust_batches.fetched import TP, ConsumerRecord


class ArchiveReader:
    """Reads ranges of the archive; files are unpacked on the given threads."""

    def __init__(self, objects: Objects, threads: ThreadPoolExecutor) -> None:
        self._objects, self._threads = objects, threads

    async def read(self, chain: Chain, start: int, end: int) -> AsyncIterator[Sequence[ConsumerRecord]]:
        """Batches from the archive, which has all of [start, end). The next file is fetched while one is read."""
        ahead: list[asyncio.Task[tuple[Manifest, bytes]]] = []
        following = start
        rows = RowReader(chain.tp)

        async def fetch(offset: int) -> tuple[Manifest, bytes]:
            manifest = await chain.covering(offset)
            if manifest.is_lost:
                raise gap(chain.tp, manifest.first, manifest.end)
            return manifest, await file_of(self._objects, manifest)

        try:
            while following < end or ahead:
                if not ahead:
                    ahead.append(asyncio.create_task(fetch(following)))
                manifest, data = await ahead.pop(0)
                following = manifest.end
                if following < end:
                    ahead.append(asyncio.create_task(fetch(following)))
                async for batch in self._records(manifest, data, rows, start, end):
                    yield batch
                if following >= end:
                    return
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _records(
        self, manifest: Manifest, data: bytes, rows: RowReader, start: int, end: int
    ) -> AsyncIterator[Sequence[ConsumerRecord]]:
        """Batches of one file, each read on a thread while the one before is in the caller's hands."""
        loop = asyncio.get_running_loop()
        batches = blocks_of(data, manifest, rows)
        waiting = loop.run_in_executor(self._threads, next, batches, None)
        try:
            while (batch := await waiting) is not None:
                is_last = batch[-1].offset >= end - 1
                if not is_last:
                    waiting = loop.run_in_executor(self._threads, next, batches, None)
                if batch[0].offset < start or batch[-1].offset >= end:
                    batch = [record for record in batch if start <= record.offset < end]
                if batch:
                    yield batch
                if is_last:
                    return
        finally:
            await asyncio.wait([waiting])


async def file_of(objects: Objects, manifest: Manifest) -> bytes:
    """The data object of a range, checked; empty where the range has no record. Raises ArchiveDamaged."""
    path = manifest.object_path
    if path is None:
        return b""
    data = await objects.get(path)
    if data is None:
        raise ArchiveDamaged(f"object {path} is missing. {MEND}")
    if (await asyncio.to_thread(sha256, data)).hexdigest() != manifest.sha256:
        raise ArchiveDamaged(f"object {path} is damaged: its bytes are not those that were archived. {MEND}")
    return data


def blocks_of(data: bytes, manifest: Manifest, rows: RowReader | None = None) -> _Blocks:
    """Batches of a file's records, in order."""
    return _Blocks(data, manifest, rows or RowReader(manifest.tp))


class _Blocks:
    """An iterator whose steps may run on a thread. Raises ArchiveDamaged with the object's name."""

    def __init__(self, data: bytes, manifest: Manifest, rows: RowReader) -> None:
        self._blocks, self._path, self._rows = blocks(data) if data else iter(()), manifest.object_path, rows

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> list[Archived]:
        try:
            count, data = next(self._blocks)
            return self._rows.rows(count, data)
        except ArchiveDamaged as error:
            raise ArchiveDamaged(f"object {self._path} is damaged: {error}. {MEND}") from None


def gap(tp: TP, asked: int, begins: int) -> HistoryGap:
    return HistoryGap(
        f"{tp.topic}/{tp.partition}: offsets {asked} to {begins} are gone, from the log and the archive. Begin at {begins} or "
        "later, or restore an archive that has them (`fw restore`)."
    )
