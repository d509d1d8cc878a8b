"""A Postgres to hold the simulated one against: both behind one face, for `tests/contract/test_store_postgres.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import UUID

import asyncpg

from projections.platform import schema
from projections.tables import Table
from tests.sim.loop import SimLoop
from tests.sim.stores.postgres import Connection, PostgresServer
from tests.sim.stores.wire import Wire

T = TypeVar("T")
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


class Place(Protocol):
    """A Postgres to try things on."""

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T: ...
    async def pool(self, idle_seconds: float = 60) -> Pool: ...
    async def rows(self, pool: Pool, projection: str, build: int, table: Table, tenant: UUID) -> list[tuple[object, ...]]: ...
    async def terminate(self, pool: Pool, connection: Any) -> None: ...


class Simulated:
    def __init__(self) -> None:
        self.loop = SimLoop()
        self.server = PostgresServer(Wire(self.loop))

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self.loop.run(work())

    async def pool(self, idle_seconds: float = 60) -> Pool:
        self.server.idle_seconds = idle_seconds
        return self.server.pool()

    async def rows(self, pool: Pool, projection: str, build: int, table: Table, tenant: UUID) -> list[tuple[object, ...]]:
        found = self.server.heap.tables[f"{schema(projection, build)}.{table.name}"].values()
        return sorted_rows([tuple(row[c.name] for c in table.written) for row in found if row["tenant_id"] == tenant], table)

    async def terminate(self, pool: Pool, connection: Any) -> None:
        assert isinstance(connection, Connection)
        connection._session.drop()


class Real:
    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(work())

    async def pool(self, idle_seconds: float = 60) -> Pool:
        idle = {"idle_in_transaction_session_timeout": str(round(1000 * idle_seconds))}
        return await asyncpg.create_pool(self.url, min_size=1, max_size=4, server_settings=idle)

    async def rows(self, pool: Pool, projection: str, build: int, table: Table, tenant: UUID) -> list[tuple[object, ...]]:
        names = ", ".join(c.name for c in table.written)
        found = await pool.fetch(f"SELECT {names} FROM {schema(projection, build)}.{table.name} WHERE tenant_id = $1", tenant)
        return sorted_rows([tuple(row) for row in found], table)

    async def terminate(self, pool: Pool, connection: Any) -> None:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await pool.execute("SELECT pg_terminate_backend($1)", pid)


def sorted_rows(rows: Sequence[tuple[object, ...]], table: Table) -> list[tuple[object, ...]]:
    return sorted(rows, key=lambda row: repr(row[: len(table.key)]))
