"""Deletes old history, by policy only.

Invariants: decisions are never deleted, nor any other topic whose records are kept for ever; ranges go from the oldest on, each
manifest before its object, so that what is left is one chain at every moment and a crash leaves at most an orphan.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from streams.archive.chain import load_chains
from streams.archive.errors import ArchiveError
from streams.archive.manifest import Manifest
from streams.archive.objects import Objects
from streams.topics import Topic


async def old_ranges(objects: Objects, topic: Topic, before: datetime) -> Sequence[Manifest]:
    """Ranges whose every record was appended before a time, oldest first. Raises ArchiveError for what is kept for ever."""
    if topic.retention_ms < 0:
        raise ArchiveError(f"{topic.name} is kept for ever: it is the truth that everything else is computed from.")
    milliseconds, found = before.timestamp() * 1000, list[Manifest]()
    for _, chain in sorted((await load_chains(objects, topic.name)).items()):
        for first in chain.firsts[:-1]:  # the last range tells where the archive ends: it stays
            manifest = await chain.manifest(first)
            if manifest.last_appended_ms is not None and manifest.last_appended_ms >= milliseconds:
                break
            found.append(manifest)
    return found


async def delete_range(objects: Objects, manifest: Manifest) -> None:
    await objects.delete(manifest.path)
    if manifest.object_path is not None:
        await objects.delete(manifest.object_path)
