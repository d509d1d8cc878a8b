"""The data keys that the platform keeps: in PostgreSQL, wrapped by the master key.

Invariants
* A key is durable before its registration is answered: an edge forgets its envelope then.
* What was erased stays erased. A key that was made before its person's erasure and comes late (an edge was cut off) is noted as
  destroyed, and never kept. Registering and destroying wait for one another (table lock), so none slips through between them.
* Destroying a key takes its wrapped bytes away; the row stays and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from streams.errors import Transient
from streams.generated import PersonalKind
from streams.ids import OPERATOR_TENANT, derive
from streams.privacy.master_key import ADVICE, MasterKey, WrongMasterKey, master_key
from streams.privacy.people import Whose
from streams.privacy.sealing import new_key
from streams.settings import Settings, SettingsError

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

INTAKE: Final = "INTAKE_DAY"
PSEUDONYMS: Final = "PSEUDONYM_DAY"
"""Keys of the installation for a day; the tenant of their rows is the operator's."""

_INSERT: Final = """
INSERT INTO platform.data_key (key_id, tenant_id, kind, subject_tag, day, made_at, expires_at, master_key_id, wrapped)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING"""
# After the insert: its lock makes this wait for an erasure under way, whose row is seen then.
_REFUSE_LATE: Final = """
UPDATE platform.data_key k SET wrapped = NULL, destroyed_at = now() WHERE key_id = ANY($1) AND wrapped IS NOT NULL AND (
    expires_at <= now() OR EXISTS (
        SELECT FROM platform.erasure e WHERE e.tenant_id = k.tenant_id AND e.kind = k.kind
            AND e.subject_tag IS NOT DISTINCT FROM k.subject_tag AND e.day IS NOT DISTINCT FROM k.day
            AND e.destroyed_at >= k.made_at))"""
# Done again, it leaves alone what was made since: whoever came back after their erasure is not erased by it once more.
_DESTROY: Final = """
UPDATE platform.data_key k SET wrapped = NULL, destroyed_at = now()
WHERE tenant_id = $1 AND kind = $2 AND subject_tag IS NOT DISTINCT FROM $3 AND day IS NOT DISTINCT FROM $4
    AND wrapped IS NOT NULL
    AND NOT EXISTS (SELECT FROM platform.erasure e WHERE e.erasure_id = $5 AND e.destroyed_at < k.made_at)"""
_RECORD: Final = """
INSERT INTO platform.erasure (erasure_id, tenant_id, kind, subject_tag, day, keys_destroyed, destroyed_at)
VALUES ($1, $2, $3, $4, $5, $6, now())
ON CONFLICT (erasure_id) DO NOTHING"""
_DUE: Final = """
SELECT DISTINCT tenant_id, kind, day FROM platform.data_key
WHERE wrapped IS NOT NULL AND expires_at <= now() AND kind <> ALL($1) ORDER BY day, tenant_id, kind LIMIT 500"""
_KEYS: Final = "SELECT key_id, kind, wrapped FROM platform.data_key WHERE tenant_id = $1 AND key_id = ANY($2)"
_LOCK: Final = "LOCK TABLE platform.data_key IN SHARE ROW EXCLUSIVE MODE"
_RECORDED: Final = "SELECT keys_destroyed FROM platform.erasure WHERE erasure_id = $1"
_SWEEP: Final = "VACUUM platform.data_key"
_POSITION: Final = "SELECT next_offset FROM platform.reactor_position WHERE reactor = $1 AND topic = $2 AND partition = $3"
_ADVANCE: Final = """
INSERT INTO platform.reactor_position VALUES ($1, $2, $3, $4) ON CONFLICT (reactor, topic, partition)
DO UPDATE SET next_offset = greatest(reactor_position.next_offset, excluded.next_offset)"""
_EXPIRE_OWN: Final = """
UPDATE platform.data_key SET wrapped = NULL, destroyed_at = now()
WHERE wrapped IS NOT NULL AND expires_at <= now() AND kind = ANY($1)"""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A data key to be kept. `made_at`: when its maker began to use it."""

    key_id: UUID
    key: bytes
    whose: Whose
    made_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """Keys of a day whose time is over."""

    tenant_id: UUID
    kind: PersonalKind
    day: date


class KeyStore:
    """Opened lazily: a process starts, and does what needs no keys, while the database is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: tuple[Pool, MasterKey] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened[0].close()

    async def register(self, keys: Sequence[NewKey]) -> None:
        """Keeps them, durably; one that is known already stays as it is. Raises Transient."""
        master = await self._master()
        rows = [
            (
                k.key_id,
                k.whose.tenant_id,
                k.whose.kind.value,
                k.whose.subject_tag,
                k.whose.day,
                k.made_at,
                k.expires_at,
                master.id,
                master.wrap(k.key, _bound_to(k.key_id, k.whose.tenant_id, k.whose.kind.value)),
            )
            for k in keys
        ]
        async with self._transaction() as db:
            await db.executemany(_INSERT, rows)
            await db.execute(_REFUSE_LATE, [k.key_id for k in keys])

    async def keys(self, tenant_id: UUID, key_ids: Collection[UUID]) -> dict[UUID, bytes | None]:
        """The tenant's keys with these ids; None: destroyed. One that is missing has not come yet. Raises Transient."""
        async with self._connection() as db:
            found = await db.fetch(_KEYS, tenant_id, list(key_ids))
        master = await self._master()
        return {
            r["key_id"]: r["wrapped"] and master.unwrap(r["wrapped"], _bound_to(r["key_id"], tenant_id, r["kind"])) for r in found
        }

    async def day_key(self, kind: str, day: date, made_at: datetime, expires_at: datetime) -> bytes | None:
        """The installation's own key of a day, made by whoever asks first; None: it was destroyed. Raises Transient."""
        key_id, master = day_key_id(kind, day), await self._master()
        wrapped = master.wrap(new_key(), _bound_to(key_id, OPERATOR_TENANT, kind))
        async with self._connection() as db:
            await db.execute(_INSERT, key_id, OPERATOR_TENANT, kind, None, day, made_at, expires_at, master.id, wrapped)
        return (await self.keys(OPERATOR_TENANT, [key_id])).get(key_id)

    async def destroy(self, erasure_id: UUID, whose: Whose) -> int:
        """Destroys a person's keys; gives how many there were, the same when it is done again. Raises Transient."""
        of = (whose.tenant_id, whose.kind.value, whose.subject_tag, whose.day)
        async with self._transaction() as db:
            await db.execute(_LOCK)
            done = await db.execute(_DESTROY, *of, erasure_id)
            await db.execute(_RECORD, erasure_id, *of, int(done.rpartition(" ")[2]))
            count = await db.fetchval(_RECORDED, erasure_id)
        assert isinstance(count, int)
        return count

    async def due(self) -> Sequence[Due]:
        """Persons' keys whose time is over. Raises Transient."""
        async with self._connection() as db:
            rows = await db.fetch(_DUE, [INTAKE, PSEUDONYMS])
        return [Due(r["tenant_id"], PersonalKind(r["kind"]), r["day"]) for r in rows]

    async def expire_own(self) -> None:
        """Destroys the installation's own keys whose time is over: they are nobody's, so nothing is recorded."""
        async with self._connection() as db:
            await db.execute(_EXPIRE_OWN, [INTAKE, PSEUDONYMS])

    async def sweep(self) -> None:
        """Lets PostgreSQL overwrite what was taken away: old row versions go, and the log begins a new file."""
        async with self._connection() as db:
            await db.execute(_SWEEP)

    async def position(self, reactor: str, topic: str, partition: int) -> int:
        """The next offset that a reactor has to read. Raises Transient."""
        async with self._connection() as db:
            found = await db.fetchval(_POSITION, reactor, topic, partition)
        return int(found or 0)

    async def advance(self, reactor: str, topic: str, partition: int, next_offset: int) -> None:
        """Never back: of two that run by mistake, the slower one changes nothing. Raises Transient."""
        async with self._connection() as db:
            await db.execute(_ADVANCE, reactor, topic, partition, next_offset)

    async def _master(self) -> MasterKey:
        return (await self._open())[1]

    async def _open(self) -> tuple[Pool, MasterKey]:
        """Connects, and makes sure that the master key is the one that the keys there were wrapped by."""
        async with self._opening:
            if self._opened is None:
                with _away():
                    pool = await asyncpg.create_pool(
                        self._settings.postgres_url,
                        min_size=0,
                        max_size=2,
                        command_timeout=30,
                        # What is promised here is on disk when it is: unlike projections, nothing could bring it back.
                        server_settings={
                            "application_name": "frameworks-keys",
                            "synchronous_commit": "on",
                            # A frozen process keeps its lock; without this every key of every edge would wait for it.
                            "idle_in_transaction_session_timeout": "5000",
                        },
                    )
                try:
                    with _away():
                        known = await pool.fetch("SELECT DISTINCT master_key_id FROM platform.data_key WHERE wrapped IS NOT NULL")
                    self._opened = pool, _checked(self._settings, {r["master_key_id"] for r in known})
                finally:
                    if self._opened is None:
                        await pool.close()
            return self._opened

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        pool, _ = await self._open()
        with _away():
            async with pool.acquire() as connection:
                yield connection

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._connection() as connection, connection.transaction():
            yield connection


def day_key_id(kind: str, day: date) -> UUID:
    return derive(OPERATOR_TENANT, kind, day.isoformat())


@contextmanager
def _away() -> Iterator[None]:
    """Whatever passes when the database is back and migrated becomes Transient."""
    try:
        yield
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.UndefinedTableError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # a connection that was lost in between two statements
        asyncpg.DeadlockDetectedError,
        asyncpg.IdleInTransactionSessionTimeoutError,
    ) as error:
        raise Transient(f"the key store does not answer: {error!r}") from error


def _checked(settings: Settings, ids: set[bytes]) -> MasterKey:
    """Raises WrongMasterKey."""
    try:
        master = master_key(settings, may_make=not ids)
    except SettingsError as error:
        raise WrongMasterKey(str(error)) from None
    if ids - {master.id}:
        raise WrongMasterKey(f"the keys in platform.data_key were wrapped by another master key: {ADVICE}")
    return master


def _bound_to(key_id: UUID, tenant_id: UUID, kind: str) -> bytes:
    return key_id.bytes + tenant_id.bytes + kind.encode()
