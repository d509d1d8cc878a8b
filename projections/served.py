"""Which build a store writes to, and up to where: what the stores of both databases share.

Invariant: a live store writes to the active build. It learns of a flip by being refused: the positions of a build that is not
active any more are retired. A flip happens only when the new build has passed the old one, so going on means going on with the
next record; that is checked all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import asyncpg

from projections.builds import Build, Projection, active, serving
from projections.model import TP, Database
from projections.platform import advance, load_offsets
from streams.errors import Superseded
from streams.faust_batches.fetched import Halted
from streams.telemetry import log


class Served:
    """`fixed`: always this build, whoever is active. That is how a rebuild fills one."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], projection: Projection, fixed: Build | None) -> None:
        self.pool, self.projection, self.fixed = pool, projection, fixed
        self.next: dict[TP, int | None] = {}
        self._build = fixed

    @property
    def build(self) -> Build:
        if self._build is None:
            raise RuntimeError("prepare() comes first")
        return self._build

    async def prepare(self) -> None:
        """Finds the build. Raises Halted when a person has to do something first."""
        if self.fixed is None:
            self._build = await serving(self.pool, self.projection)

    async def load(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        if self.fixed is None:
            await self.moved_on()
        self.next = dict(await load_offsets(self.pool, self.projection.name, self.build.number, tps))
        return dict(self.next)

    async def advance(self, db: Database, tp: TP, expected: int | None, new: int) -> None:
        await advance(
            db, self.projection.name, self.build.number, tp, expected=expected, new=new, retired_too=self.fixed is not None
        )

    async def moved_on(self) -> bool:
        """Whether another build is active now: then that is ours from here on, with its positions."""
        if self.fixed is not None:
            return False
        found = await active(self.pool, self.projection.name)
        if found is None or found.number == self.build.number:
            return False
        if found.version != self.projection.version:
            raise Superseded(
                f"build {found.number} of {self.projection.name} is active now, and it is of version {found.version}; this is "
                f"version {self.projection.version}"
            )
        before, of_before = self.next, self.build.number
        self._build = await serving(self.pool, self.projection)
        self.next = dict(await load_offsets(self.pool, self.projection.name, self.build.number, before))
        for tp, position in before.items():
            if (self.next[tp] or 0) < (position or 0):
                raise Halted(
                    f"build {self.build.number} of {self.projection.name} stands at {self.next[tp]} of {tp.topic}/{tp.partition} "
                    f"and build {of_before} was at {position} when it was left: it lacks records that nobody will read "
                    f"again. Run `fw rebuild {self.projection.name}`"
                )
        log(__name__).info("another build is active", projection=self.projection.name, build=self.build.number, before=of_before)
        return True
