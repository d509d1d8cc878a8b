"""Copies the archive from one storage to another, only what is missing there.

Invariant: the copy is an archive at every moment: ranges go from the oldest on, each object before its manifest, and no bytes
are copied that are not those of their checksum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from streams.archive.chain import Chain, load_chains
from streams.archive.errors import ArchiveDamaged
from streams.archive.files import file_of
from streams.archive.manifest import Manifest
from streams.archive.objects import Objects

PARTITIONS_AT_ONCE: Final = 4


async def ranges_until(archive: Objects, positions: Mapping[str, Mapping[int, int]]) -> Mapping[tuple[str, int], list[Manifest]]:
    """The ranges of each partition up to an end. Raises ArchiveDamaged where they do not reach it."""
    found: dict[tuple[str, int], list[Manifest]] = {}
    for topic, ends in positions.items():
        chains = await load_chains(archive, topic)
        for partition, end in ends.items():
            chain = chains.get(partition)
            ranges = found[topic, partition] = await _ranges(chain, end) if chain is not None else []
            reached = ranges[-1].end if ranges else 0
            if reached != end:
                raise ArchiveDamaged(
                    f"{topic}/{partition}: the archive in {archive.name} reaches to {reached}, and should to {end}. "
                    "`fw archive verify` says what is missing."
                )
    return found


async def _ranges(chain: Chain, end: int) -> list[Manifest]:
    return [await chain.covering(first) for first in chain.firsts if first < end]


async def copy(
    source: Objects, target: Objects, ranges: Mapping[tuple[str, int], list[Manifest]], copied: Callable[[Manifest], None]
) -> int:
    """Brings ranges to the target; how many were not there."""
    there = {listed.path async for listed in target.list()}
    gate = asyncio.Semaphore(PARTITIONS_AT_ONCE)

    async def one_partition(manifests: list[Manifest]) -> int:
        new = 0
        async with gate:
            for manifest in manifests:
                if manifest.path not in there:
                    path = manifest.object_path
                    if path is not None and path not in there:
                        await target.put(path, await file_of(source, manifest))
                    await target.put(manifest.path, manifest.encoded())
                    new += 1
                copied(manifest)
        return new

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one_partition(manifests)) for manifests in ranges.values()]
    return sum(task.result() for task in tasks)
