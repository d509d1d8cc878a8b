"""The ranges of one partition in the archive, one behind the other.

Invariant: ranges are contiguous, because a manifest is named by its first offset and the next begins at its end. So a listing
of names tells every range, and one manifest, the last, tells where the archive ends.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.archive.errors import ArchiveDamaged
from streams.archive.manifest import MANIFEST, MEND, Manifest, manifest_path, read_manifest
from streams.archive.objects import Objects
from streams.faust_batches.fetched import TP


class Range(NamedTuple):
    """Offsets from `first` up to, not including, `end`."""

    first: int
    end: int


@dataclass(slots=True)
class Chain:
    """What the archive has of a partition. Manifests are fetched when they are needed, and remembered: they never change."""

    objects: Objects
    tp: TP
    firsts: list[int] = field(default_factory=list)
    end: int = 0
    _manifests: dict[int, Manifest] = field(default_factory=dict)

    @property
    def range(self) -> Range | None:
        return Range(self.firsts[0], self.end) if self.firsts else None

    async def manifest(self, first: int) -> Manifest:
        """Raises ArchiveDamaged where it is missing or damaged."""
        if first not in self._manifests:
            path = manifest_path(self.tp, first)
            data = await self.objects.get(path)
            if data is None:
                raise ArchiveDamaged(f"manifest {path} is missing. {MEND}")
            self._manifests[first] = read_manifest(path, data)
        return self._manifests[first]

    async def covering(self, offset: int) -> Manifest:
        """The range that an offset lies in; it has to lie in one."""
        index = bisect_right(self.firsts, offset) - 1
        manifest = await self.manifest(self.firsts[index])
        following = self.firsts[index + 1] if index + 1 < len(self.firsts) else self.end
        if manifest.end != following:
            raise ArchiveDamaged(
                f"{self.tp.topic}/{self.tp.partition}: the range after {manifest.path} should begin at {manifest.end}, "
                f"and begins at {following}. {MEND}"
            )
        return manifest

    async def first_range_until(self, appended_ms: int) -> int:
        """Index of a range: none before it has a record appended at or after a time, and the first that has is not far behind."""
        low, high = 0, len(self.firsts)
        while low < high:
            middle = (low + high) // 2
            probe, last = middle, await self._last_appended_ms(middle)
            while last is None and probe + 1 < high:  # a range without a record says nothing
                probe += 1
                last = await self._last_appended_ms(probe)
            if last is None or last >= appended_ms:
                high = middle
            else:
                low = probe + 1
        return low

    async def _last_appended_ms(self, index: int) -> int | None:
        return (await self.manifest(self.firsts[index])).last_appended_ms

    async def extend(self) -> None:
        """Looks for ranges that were added behind the end since."""
        while True:
            path = manifest_path(self.tp, self.end)
            data = await self.objects.get(path)
            if data is None:
                return
            self.append(read_manifest(path, data))

    def append(self, manifest: Manifest) -> None:
        """Takes the range that begins at the end; one that is known already changes nothing."""
        if self.firsts and manifest.first != self.end:
            return
        self._manifests[manifest.first] = manifest
        self.firsts.append(manifest.first)
        self.end = manifest.end


async def load_chains(objects: Objects, topic: str) -> Mapping[int, Chain]:
    """What the archive has of a topic, by partition. Raises ArchiveDamaged where a last manifest cannot be read."""
    firsts = defaultdict[int, list[int]](list)
    async for listed in objects.list(f"{topic}/"):
        if match := MANIFEST.fullmatch(listed.path):
            firsts[int(match["partition"])].append(int(match["first"]))
    chains = {p: Chain(objects, TP(topic, p), sorted(found)) for p, found in firsts.items()}

    async def find_end(chain: Chain) -> None:
        chain.end = (await chain.manifest(chain.firsts[-1])).end

    await asyncio.gather(*map(find_end, chains.values()))
    return chains
