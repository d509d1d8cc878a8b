"""Reads the whole archive again and says what is wrong with it. Changes nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from streams.archive.errors import ArchiveDamaged
from streams.archive.files import blocks_of, file_of
from streams.archive.manifest import DATA, MANIFEST, Manifest, read_manifest
from streams.archive.objects import Objects
from streams.faust_batches.fetched import TP

Kind = Literal["damaged", "missing", "orphan", "lost"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one object. `lost`: said in the archive itself, and accepted; everything else is a fault."""

    kind: Kind
    path: str
    sentence: str


@dataclass(slots=True)
class Contents:
    """What a listing shows."""

    manifests: dict[TP, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    data: dict[str, int] = field(default_factory=dict)  # path: size
    others: list[str] = field(default_factory=list)

    @property
    def ranges(self) -> int:
        return sum(map(len, self.manifests.values()))


async def contents(objects: Objects, prefix: str = "") -> Contents:
    found = Contents()
    async for listed in objects.list(prefix):
        if match := MANIFEST.fullmatch(listed.path):
            found.manifests[TP(match["topic"], int(match["partition"]))][int(match["first"])] = listed.path
        elif DATA.fullmatch(listed.path):
            found.data[listed.path] = listed.size_bytes
        else:
            found.others.append(listed.path)
    return found


async def check(
    objects: Objects, there: Contents, checked: Callable[[Manifest], None] = lambda _: None
) -> AsyncIterator[Finding]:
    """Every finding, partition by partition: checksums, records, and whether ranges follow one another."""
    named = set[str]()
    for tp in sorted(there.manifests):
        before: Manifest | None = None
        for _, path in sorted(there.manifests[tp].items()):
            try:
                manifest = read_manifest(path, await objects.get(path) or b"")
            except ArchiveDamaged as error:
                yield Finding("damaged", path, str(error))
                before = None
                continue
            if before is not None and before.end != manifest.first:
                yield Finding(
                    "missing",
                    path,
                    f"the range before ends at {before.end} and this one begins at {manifest.first}: a manifest is missing.",
                )
            for finding in await _check_range(objects, manifest, there):
                yield finding
            if manifest.object_path is not None:
                named.add(manifest.object_path)
            before = manifest
            checked(manifest)
    for path in sorted({*there.data, *there.others} - named):
        yield Finding(
            "orphan", path, "no manifest names it: nothing reads it, and it may be deleted (`fw archive prune --orphans`)."
        )


async def orphans(objects: Objects, before: datetime) -> Sequence[str]:
    """Objects that no manifest names and that were written before a time: a worker writes an object just before its manifest."""
    old, named = list[str](), set[str]()
    async for listed in objects.list():
        if MANIFEST.fullmatch(listed.path):
            manifest = read_manifest(listed.path, await objects.get(listed.path) or b"")
            named.add(manifest.object_path or "")
        elif listed.modified_at < before:
            old.append(listed.path)
    return sorted(set(old) - named)


async def _check_range(objects: Objects, manifest: Manifest, there: Contents) -> Sequence[Finding]:
    path = manifest.object_path
    if manifest.is_lost:
        lost = f"offsets {manifest.first} to {manifest.end} were deleted by the log before they were archived."
        return [Finding("lost", manifest.path, lost)]
    if path is None:
        return []
    if path not in there.data:
        return [Finding("missing", path, f"manifest {manifest.path} names it.")]
    try:
        data = await file_of(objects, manifest)
        await asyncio.to_thread(_check_records, manifest, data)
    except ArchiveDamaged as error:
        return [Finding("damaged", path, str(error))]
    return []


def _check_records(manifest: Manifest, data: bytes) -> None:
    count, last = 0, manifest.first - 1
    for batch in blocks_of(data, manifest):
        for record in batch:
            if not last < record.offset < manifest.end:
                raise ArchiveDamaged(f"object {manifest.object_path}: offset {record.offset} does not belong behind {last}.")
            last = record.offset
        count += len(batch)
    if count != manifest.records:
        raise ArchiveDamaged(f"object {manifest.object_path} has {count} records, and {manifest.path} says {manifest.records}.")
