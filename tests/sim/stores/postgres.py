"""A Postgres in memory, and the part of asyncpg that projections use.

Invariant: the server keeps what it applied, whatever the client hears. A connection that ends, by whose fault it may be, rolls
back what was open on it; so does one that says nothing for a while inside of a transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import asyncpg

from tests.sim.loop import Process, current
from tests.sim.stores.heap import Heap, Transaction
from tests.sim.stores.records import Record
from tests.sim.stores.statements import Answer, Statement, empty, known
from tests.sim.stores.wire import Wire

T = TypeVar("T")
IDLE_SECONDS: Final = 5.0
"""As `projections.platform.connect` asks for."""


class PostgresServer:
    """`also`: statements that are known beside those of projections."""

    def __init__(self, wire: Wire, *, idle_seconds: float = IDLE_SECONDS, also: Mapping[str, Statement] | None = None) -> None:
        self.wire, self.heap, self.idle_seconds = wire, empty(), idle_seconds
        self.statements = {**known(), **(also or {})}
        self.sessions: dict[_Session, None] = {}
        wire.ended.append(self._process_ended)

    def _process_ended(self, process: Process) -> None:
        for session in [s for s in self.sessions if s.process is process]:
            session.drop()

    def crash(self, commits: int) -> int:
        """The server dies and starts again without its last commits (`synchronous_commit` is off); how many those were."""
        for session in list(self.sessions):
            session.drop()
        return self.heap.crash(commits)

    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """What `platform.connect` gives, for the process that asks."""
        return cast("asyncpg.Pool[asyncpg.Record]", Pool(self))


class _Session:
    """One connection, as the server has it."""

    def __init__(self, server: PostgresServer, process: Process) -> None:
        self.server, self.process = server, process
        self.is_open = True
        self.tx: Transaction | None = None
        self._not_idle: Callable[[], None] = lambda: None
        server.sessions[self] = None

    @property
    def heap(self) -> Heap:
        return self.server.heap

    async def begin(self) -> Answer:
        self.tx = Transaction()
        return "BEGIN", []

    async def finish(self, *, commit: bool) -> Answer:
        tx = self.tx
        assert tx is not None
        self.tx = None
        commit = commit and not tx.has_failed
        self.heap.end(tx, commit=commit)
        return ("COMMIT" if commit else "ROLLBACK"), []

    async def run(self, query: str, args: Sequence[object]) -> Answer:
        statement = self.server.statements.get(query)
        if statement is None:
            raise AssertionError(f"the simulated Postgres does not know this statement: tests/sim/stores/statements.py\n{query}")
        tx = self.tx or Transaction()
        if tx.has_failed:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        try:
            answer = await statement(self.heap, tx, args)
        except asyncpg.PostgresError:
            tx.has_failed = True
            if tx is not self.tx:
                self.heap.end(tx, commit=False)
            raise
        if tx is not self.tx and not tx.is_over:
            self.heap.end(tx, commit=True)
        return answer

    async def serve(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        if not self.is_open:
            raise asyncpg.InterfaceError("connection is closed")
        self._not_idle()
        answer = await work()
        if not self.is_open:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        if self.tx is not None:
            self._not_idle = self.server.wire.later(self.server.idle_seconds, self.drop)
        return answer

    def drop(self) -> None:
        """The connection ends: what was open is rolled back."""
        self._not_idle()
        self.is_open = False
        self.server.sessions.pop(self, None)
        if self.tx is not None:
            self.heap.end(self.tx, commit=False)
            self.tx = None


class _Asking:
    """execute, fetch and so on, in terms of `_ask`."""

    async def _ask(self, query: str, args: Sequence[object]) -> Answer:
        raise NotImplementedError

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        return (await self._ask(query, args))[0]

    async def executemany(self, query: str, rows: Sequence[Sequence[object]]) -> None:
        for row in rows:
            await self._ask(query, row)

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Record]:
        return (await self._ask(query, args))[1]

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Record | None:
        return next(iter(await self.fetch(query, *args)), None)

    async def fetchval(self, query: str, *args: object, timeout: float | None = None) -> object:
        row = await self.fetchrow(query, *args)
        return None if row is None else row[0]


class Connection(_Asking):
    """As the client has it."""

    def __init__(self, server: PostgresServer) -> None:
        self._server, self._session = server, _Session(server, current())
        self.is_closed = False

    async def _ask(self, query: str, args: Sequence[object]) -> Answer:
        return await self._request(
            query.split("\n")[1 if query.startswith("\n") else 0][:40], lambda: self._session.run(query, args)
        )

    async def _request(self, what: str, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        if self.is_closed:
            raise asyncpg.InterfaceError("connection is closed")
        session = self._session
        try:
            return await self._server.wire.request(what, lambda: session.serve(work), _lost, session.drop)
        finally:
            self.is_closed = not session.is_open

    def transaction(self) -> _Transaction:
        return _Transaction(self)

    def close(self) -> None:
        self._session.drop()


class _Transaction:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Self:
        await self._connection._request("BEGIN", self._connection._session.begin)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        connection = self._connection
        if connection.is_closed:  # asyncpg says this instead of what happened inside
            raise asyncpg.InterfaceError("cannot call Transaction.__aexit__(): the underlying connection is closed")
        what = "COMMIT" if kind is None else "ROLLBACK"
        await connection._request(what, lambda: connection._session.finish(commit=kind is None))


class Pool(_Asking):
    """Connections without number: ours hold one at a time."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        connection = Connection(self._server)
        try:
            yield connection
        finally:
            connection.close()

    async def _ask(self, query: str, args: Sequence[object]) -> Answer:
        async with self.acquire() as connection:
            return await connection._ask(query, args)

    async def close(self) -> None:
        """They are closed when they are given back."""


def _lost() -> Exception:
    return asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
