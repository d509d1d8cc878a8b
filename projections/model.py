"""What a projection is, and what a store of projections does.

Invariants: the position moves with the data (`Store.apply`), and a projection gives the same rows for any split of the log
into batches, and for facts that stand on it twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import asyncpg

from projections.clickhouse_tables import FactTable
from projections.tables import Table
from streams.faust_batches.fetched import TP, ConsumerRecord
from streams.generated import Event, Meta

__all__ = ["TP", "ConsumerRecord", "Database", "Delivered", "FactProjection", "Letters", "Store", "TableProjection", "TopicName"]

TopicName = Literal["decisions", "facts", "nodes", "samples"]
"""Attribute of `streams.topics.Topics`."""


class Database(Protocol):
    """A pool or a connection: what read functions and folds need of asyncpg."""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...
    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[asyncpg.Record]: ...
    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> asyncpg.Record | None: ...


class Delivered(NamedTuple):
    """An event as a projection gets it: what `Recorded` says, and the framed bytes that it was read from.

    A tuple because tens of thousands a second are made: a frozen dataclass takes four times as long.
    """

    event: Event
    meta: Meta
    topic: str
    partition: int
    offset: int
    value: bytes
    appended_at_ms: int = 0  # Unix time at which the log took it
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class TableProjection:
    """A read model in Postgres.

    `apply` gets what it handles of one batch of one partition, in order, inside the transaction that also moves the position.
    It writes per batch, never per event.
    """

    name: str
    version: int
    topics: tuple[TopicName, ...]
    handles: frozenset[type]
    tables: tuple[Table, ...]
    apply: Callable[[Sequence[Delivered], Database], Awaitable[None]]
    replayable: frozenset[type] = frozenset()
    """What may be applied again to rows that are further: only columns that commute (`Merge.GREATEST`, `FIRST`) come from it."""
    linger_seconds: float = 0.02
    """For how long a worker collects that is busy and not behind; the first record after a pause does not wait. A batch costs
    more than its events: at 200 facts a second three workers that took each by itself made everything live 20 ms later."""


@dataclass(frozen=True, slots=True)
class FactProjection:
    """A read model in ClickHouse: bytes in, block out, nothing decoded. Its folds are the read functions' queries.

    `batch_bytes` bounds what is read of a partition at once when behind, and with it the block that is inserted: few large
    blocks cost ClickHouse half of what many small ones do, for they have to be merged.
    """

    name: str
    version: int
    topics: tuple[TopicName, ...]
    tables: tuple[FactTable, ...]
    batch_bytes: int = 8 << 20

    @property
    def handles(self) -> frozenset[type]:
        return frozenset(table.record for table in self.tables)


class Letters(Protocol):
    """What becomes of records that a projection cannot read."""

    async def bury(self, tp: TP, letters: Sequence[tuple[ConsumerRecord, str]], /) -> None: ...
    async def close(self) -> None: ...


class Store(Protocol):
    """Where a projection's rows and its positions live. The worker calls nothing else."""

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]: ...

    async def load_offsets(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        """Next offset to read of each partition; None: from the beginning. Called on every assignment."""
        ...

    async def apply(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        """Stores a non-empty batch and moves the position behind its last record.

        Records below the stored position are dropped. Raises Superseded when somebody else moved the position; any error
        ends the process, and the batch comes again after the restart.
        """
        ...

    async def close(self) -> None: ...
