"""The clean fold: one batch a partition, one worker, no faults, on databases of its own. What every run is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from projections.clickhouse_store import ClickHouseStore
from projections.model import TP, ConsumerRecord, FactProjection, TableProjection
from projections.platform import schema
from projections.postgres_store import PostgresStore
from tests.fact_log import Raw
from tests.sim.loop import SimLoop
from tests.sim.stores.clickhouse import ClickHouseServer
from tests.sim.stores.history import History
from tests.sim.stores.postgres import PostgresServer
from tests.sim.stores.wire import Wire

Rows = list[dict[str, Any]]


class _Unheard:
    """Letters of a fold that nobody reads."""

    async def bury(self, tp: TP, letters: Sequence[tuple[ConsumerRecord, str]]) -> None: ...
    async def close(self) -> None: ...


def clean(
    projection: TableProjection | FactProjection, history: History, upto: Mapping[TP, int] | None, tenant: UUID | None = None
) -> Rows:
    """The rows of the log up to these positions (None: all of it), or of one tenant's records alone."""
    names = {getattr(history.topics, topic).name for topic in projection.topics}
    loop = SimLoop()
    wire = Wire(loop)
    postgres = PostgresServer(wire)
    clickhouse = ClickHouseServer(wire, [projection] if isinstance(projection, FactProjection) else [])

    async def fold() -> None:
        store: PostgresStore | ClickHouseStore
        if isinstance(projection, TableProjection):
            store = PostgresStore(projection, history.topics, postgres.pool(), _Unheard())
        else:
            store = ClickHouseStore(projection, history.topics, postgres.pool(), _Unheard(), clickhouse.client())
        await store.prepare()
        await store.load_offsets([tp for tp in history.tps if tp.topic in names])
        for tp, said in history.tps.items():
            end = None if upto is None else upto.get(tp, 0)
            batch = [
                Raw(tp.topic, tp.partition, offset, at, value)
                for offset, at, value in said
                if (end is None or offset < end) and (tenant is None or value[43:79] == str(tenant).encode())
            ]
            if tp.topic in names and batch:
                await store.apply(tp, batch)

    loop.run(fold())
    loop.close()
    return rows(projection, 1, postgres, clickhouse)


def rows(
    projection: TableProjection | FactProjection, build: int, postgres: PostgresServer, clickhouse: ClickHouseServer
) -> Rows:
    """All rows of a build, in an order of their own; without the seal, which is random."""
    if isinstance(projection, TableProjection):
        home = schema(projection.name, build)
        found = [
            {"": table.name, **row}
            for table in projection.tables
            for row in postgres.heap.tables[f"{home}.{table.name}"].values()
        ]
    else:
        found = [
            {"": stored.table.name, **{name: value for name, value in row.items() if name != "_seal"}}
            for stored in clickhouse.tables.values()
            if stored.table.build == build
            for row in stored.rows.values()
        ]
    return sorted(found, key=repr)


def of_tenant(found: Rows, tenant: UUID) -> Rows:
    return [row for row in found if row["tenant_id"] == tenant]
