"""A test of the tests: the real projections with one piece replaced by a mistake. The machine must find each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from projections.clickhouse_store import ClickHouseStore, Target, Unreadable
from projections.clickhouse_tables import ArrayTable, FactTable
from projections.model import TP, ConsumerRecord, FactProjection
from projections.platform import advance, load_offsets
from projections.postgres_store import Batch, PostgresStore
from projections.served import Served
from tests.sim.command_model import Wrong
from tests.sim.stores.machine import explore
from tests.sim.stores.run import Mutation

BOUND = 60
"""Examples of 25 steps within which a mistake has to be found."""


class PositionFirst(PostgresStore):
    """Commits the position, then the rows."""

    async def _commit(self, tp: TP, expected: int | None, new: int, batch: Batch) -> None:
        await self.served.advance(self.pool, tp, expected, new)
        if batch:
            async with self.pool.acquire() as db, db.transaction():
                await self.served.advance(db, tp, new, new)
                await self.projection.apply(batch, db)


class PositionBeforeInsert(ClickHouseStore):
    async def _apply(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        expected, new = self.served.next[tp], records[-1].offset + 1
        await self.served.advance(self.pool, tp, expected, new)
        self.served.next[tp] = new
        await self.insert(tp, records)


class _Careless(Served):
    """Moves the position from wherever it is."""

    async def advance(self, db: Any, tp: TP, expected: int | None, new: int) -> None:
        now = (await load_offsets(db, self.projection.name, self.build.number, [tp])).get(tp)
        await advance(db, self.projection.name, self.build.number, tp, expected=now, new=new)


class NoCompare(PostgresStore):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.served = _Careless(self.pool, self.projection, None)


class NoCompareClickHouse(ClickHouseStore):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.served = _Careless(self.pool, self.projection, None)


class _TokenClient:
    """Adds a deduplication token to every insert."""

    def __init__(self, client: Any) -> None:
        self._client, self.token = client, ""

    async def raw_insert(self, table: str, *, insert_block: bytes, fmt: str, settings: dict[str, Any]) -> None:
        settings = {**settings, "insert_deduplication_token": self.token}
        await self._client.raw_insert(table, insert_block=insert_block, fmt=fmt, settings=settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Tokens(ClickHouseStore):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.clickhouse = _TokenClient(self.clickhouse)  # type: ignore[assignment]

    async def _insert(self, target: Target, records: Sequence[ConsumerRecord]) -> Unreadable:
        first, last = records[0], records[-1]
        self.clickhouse.token = f"{first.topic}/{first.partition}/{first.offset}-{last.offset}"  # type: ignore[attr-defined]
        return await super()._insert(target, records)


class Keyless(FactTable):
    """The event id is not in the sort key."""

    def create(self) -> Sequence[str]:
        return [statement.replace(", event_id)", ")") for statement in super().create()]


class KeylessArrays(ArrayTable):
    def create(self) -> Sequence[str]:
        return [statement.replace(", event_id, position)", ", position)") for statement in super().create()]


def keyless(projection: FactProjection) -> FactProjection:
    tables: list[FactTable] = []
    for t in projection.tables:
        if isinstance(t, ArrayTable):
            tables.append(KeylessArrays(t.record, t.build, t.key, t.keep, t.singular))
        else:
            tables.append(Keyless(t.record, t.build, t.key))
    return replace(projection, tables=tuple(tables))


OFFSET_FIRST = Mutation(postgres=PositionFirst, clickhouse=PositionBeforeInsert)
NO_COMPARE = Mutation(postgres=NoCompare, clickhouse=NoCompareClickHouse)
TOKENS = Mutation(clickhouse=Tokens)
KEYLESS = Mutation(tables=keyless)


@pytest.mark.parametrize(
    ("mutation", "projection"),
    [
        pytest.param(OFFSET_FIRST, "streams", id="offset committed before data, Postgres"),
        pytest.param(OFFSET_FIRST, "stream_health", id="offset committed before data, ClickHouse"),
        pytest.param(NO_COMPARE, "streams", id="no offset compare-and-set, Postgres"),
        pytest.param(NO_COMPARE, "stream_health", id="no offset compare-and-set, ClickHouse"),
        pytest.param(KEYLESS, "stream_health", id="event id missing from a sort key"),
        pytest.param(KEYLESS, "samples", id="event id missing from the sort key of unfolded arrays"),
        pytest.param(TOKENS, "stream_health", id="deduplication token on an unreplicated table"),
    ],
)
def test_the_machine_finds_the_mistake(mutation: Mutation, projection: str) -> None:
    with pytest.raises(Wrong):
        explore(projection, mutation, BOUND)
