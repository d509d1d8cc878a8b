"""Ingest leases: at most one node publishes a stream, and a tenant has no more live streams than it may, over all nodes.

Invariants
* A lease is a row in PostgreSQL, so that several ingresses agree and none forgets. Who asks while another node has it, and is
  here, is denied; whoever has it is granted it again.
* A lease is a reservation for half a minute until the fact IngestStarted confirms it. A confirmed one lasts while its node is
  connected, and a minute longer; it ends with the fact IngestEnded. A node that comes back goes on where nobody took its place.
* A publisher that a node admitted alone, because nobody could be asked, takes the lease by its IngestStarted, if it is free.
* Of one tenant, one question is answered at a time (an advisory lock): two nodes cannot both be the last that a limit lets in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

import asyncpg
from prometheus_client import Counter, Gauge

from streams.codec import decode
from streams.errors import Rejected, Transient
from streams.generated import IngestEnded, IngestStarted, TenantPolicy
from streams.ingress.credentials import NodeCredential
from streams.ingress.lease import LeaseAnswer, LeaseOutcome
from streams.telemetry import log

RESERVED_SECONDS: Final = 30
LEASE_SECONDS: Final = 60
RENEW_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.0  # the node waits no longer
KEPT_DAYS: Final = 7  # of a lease that is over
WAITING: Final = 100_000  # facts that wait for the database

ANSWERS = Counter("fw_ingress_lease_answers_total", "Questions for a lease, by what was answered.", ["outcome"])
CONFLICTS = Counter("fw_ingress_lease_conflicts_total", "Publishers that began although another node had the lease.")
DROPPED = Counter("fw_ingress_lease_facts_dropped_total", "Facts that came while the database was away for too long.")
BEHIND = Gauge("fw_ingress_lease_facts_waiting", "Facts that the leases do not reflect yet.")

AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,  # not migrated yet
    asyncpg.InterfaceError,
)

logger = log(__name__)
if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))"
_HOLDER: Final = "SELECT node_id FROM platform.ingest_lease WHERE stream_id = $1 AND node_id <> $2 AND expires_at > now()"
_OTHERS: Final = "SELECT count(*) FROM platform.ingest_lease WHERE tenant_id = $1 AND stream_id <> $2 AND expires_at > now()"
_RESERVE: Final = """
INSERT INTO platform.ingest_lease AS l (stream_id, tenant_id, node_id, ingest_id, is_publishing, expires_at)
VALUES ($1, $2, $3, $4, false, now() + make_interval(secs => $5))
ON CONFLICT (stream_id) DO UPDATE SET tenant_id = excluded.tenant_id, node_id = excluded.node_id, ingest_id = excluded.ingest_id,
    is_publishing = l.is_publishing AND l.ingest_id = excluded.ingest_id AND l.node_id = excluded.node_id,
    granted_at = now(), expires_at = greatest(excluded.expires_at,
        CASE WHEN l.ingest_id = excluded.ingest_id AND l.node_id = excluded.node_id THEN l.expires_at END)"""
_CONFIRM: Final = """
INSERT INTO platform.ingest_lease AS l (stream_id, tenant_id, node_id, ingest_id, is_publishing, expires_at)
VALUES ($1, $2, $3, $4, true, now() + make_interval(secs => $5))
ON CONFLICT (stream_id) DO UPDATE SET tenant_id = excluded.tenant_id, node_id = excluded.node_id, ingest_id = excluded.ingest_id,
    is_publishing = true, expires_at = excluded.expires_at
WHERE l.node_id = excluded.node_id OR l.expires_at <= now()"""
_END: Final = "DELETE FROM platform.ingest_lease WHERE stream_id = $1 AND ingest_id = $2"
_RENEW: Final = """
UPDATE platform.ingest_lease SET expires_at = now() + make_interval(secs => $2)
WHERE node_id = ANY($1::text[]) AND is_publishing"""
_SWEEP: Final = "DELETE FROM platform.ingest_lease WHERE expires_at < now() - make_interval(days => $1)"


class PolicyKnown(Protocol):
    """What leases ask of the policy (`streams.ingress.policy_feed`)."""

    def owner(self, key: UUID) -> UUID | None: ...
    def tenant(self, tenant_id: UUID) -> TenantPolicy | None: ...
    def nodes(self) -> Iterable[str]: ...


class IngestLeases:
    """The leases, as one ingress sees them; `run` it."""

    def __init__(self, postgres_url: str, policy: PolicyKnown, renew_seconds: float = RENEW_SECONDS) -> None:
        self._url, self._policy, self._renew_seconds = postgres_url, policy, renew_seconds
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._waiting: deque[bytes] = deque(maxlen=WAITING)
        self._wake = asyncio.Event()

    async def ask(self, node: NodeCredential, stream_id: UUID, ingest_id: UUID) -> LeaseAnswer:
        """Raises Transient: the database does not answer; Rejected: there is no such stream for this node."""
        tenant_id = self._policy.owner(stream_id)
        if tenant_id is None or not node.serves(tenant_id):
            raise Rejected("STREAM_NOT_FOUND", "The node serves no such stream.")
        tenant = self._policy.tenant(tenant_id)
        limit = tenant.max_live_streams if tenant is not None else None
        async with self._connection() as db, db.transaction():
            answer = await _decide(db, node.node_id, tenant_id, stream_id, limit)
            if answer.outcome is LeaseOutcome.GRANTED:
                await db.execute(_RESERVE, stream_id, tenant_id, node.node_id, ingest_id, RESERVED_SECONDS)
        ANSWERS.labels(answer.outcome.value).inc()
        return answer

    def happened(self, values: Sequence[bytes]) -> None:
        """Facts that are on the log, of the WATCHED kinds, in their order."""
        if lost := max(0, len(self._waiting) + len(values) - WAITING):
            DROPPED.inc(lost)
            logger.error("leases miss facts, the database was away for too long", lost=lost)
        self._waiting.extend(values)
        self._wake.set()

    async def run(self) -> None:
        """Takes in what happened, and renews what the connected nodes have."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_in())
            tasks.create_task(self._renew())

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def _take_in(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                BEHIND.set(len(self._waiting))
                value = self._waiting[0]
                await self._persistently(partial(self._apply, value))
                if self._waiting and self._waiting[0] is value:  # else it was pushed out meanwhile
                    self._waiting.popleft()
            BEHIND.set(0)

    async def _apply(self, value: bytes) -> None:
        fact, meta = decode(value)
        async with self._connection() as db:
            match fact:
                case IngestStarted(node_id=node_id, ingest_id=ingest_id):
                    of = (meta.aggregate_id, meta.tenant_id, node_id, ingest_id)
                    if await db.execute(_CONFIRM, *of, LEASE_SECONDS) == "INSERT 0 0":
                        CONFLICTS.inc()
                        logger.warning("two nodes publish a stream", stream_id=str(meta.aggregate_id), node_id=node_id)
                case IngestEnded(ingest_id=ingest_id):
                    await db.execute(_END, meta.aggregate_id, ingest_id)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            await self._persistently(self.renew)

    async def renew(self) -> None:
        """What nodes publish who are connected here. Raises Transient."""
        async with self._connection() as db:
            await db.execute(_RENEW, list(self._policy.nodes()), LEASE_SECONDS)
            await db.execute(_SWEEP, KEPT_DAYS)

    async def _persistently(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            try:
                return await work()
            except Transient as error:
                logger.debug("leases wait for the database", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with (await self._opened()).acquire(timeout=ANSWER_SECONDS) as connection:
                yield connection
        except AWAY as error:
            raise Transient(f"the leases' database does not answer: {error!r}") from error

    async def _opened(self) -> Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=4,
                    timeout=ANSWER_SECONDS,
                    command_timeout=5,
                    # What a crash of the server takes away comes again: nodes are connected, and say what they began.
                    server_settings={"application_name": "frameworks-leases", "synchronous_commit": "off"},
                )
            return self._pool


async def _decide(db: Connection, node_id: str, tenant_id: UUID, stream_id: UUID, limit: int | None) -> LeaseAnswer:
    await db.execute(_LOCK, str(tenant_id))
    if (holder := await db.fetchval(_HOLDER, stream_id, node_id)) is not None:
        return LeaseAnswer(LeaseOutcome.DENIED, str(holder))
    if limit is not None and await db.fetchval(_OTHERS, tenant_id, stream_id) >= limit:
        return LeaseAnswer(LeaseOutcome.DENIED)
    return LeaseAnswer(LeaseOutcome.GRANTED)
