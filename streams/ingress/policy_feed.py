"""The policy, as an ingress has it from the policy topic, and the news of it for any number of nodes.

Invariant: what is told are the newest records with the platform's signature; one without it changes nothing. A node is told the
records of the tenants that it serves and of itself, and of no other. What it knew when it was here last is told again only
where it changed, as long as its offsets mean the same as ours (`Known.snapshot`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from prometheus_client import Counter, Gauge

from streams.codec import decode_policy
from streams.errors import Invalid
from streams.generated import NodePolicy, TenantPolicy
from streams.ingress.credentials import NodeCredential
from streams.ingress.limits import KEEPALIVE_SECONDS
from streams.ingress.policy_news import Known, PolicyNews, Signed
from streams.kafka import connected, ends_of, stopped
from streams.policies import CONFIRMED, policy_key
from streams.policy_publisher import INCARNATION, SIGNATURE, header
from streams.policy_signing import Verifier
from streams.telemetry import log
from streams.topics import Topics

AT_ONCE: Final = 20  # records between two turns of the loop: signatures take their time, and facts must get theirs

RECORDS = Gauge("fw_ingress_policy_records", "Records of the policy that are known.")
REFUSED = Counter(
    "fw_ingress_policy_refused_total", "Records of the policy topic without the platform's signature, or unreadable."
)
WATCHERS = Gauge("fw_ingress_policy_watchers", "Nodes that watch the policy.")
RESUMED = Counter("fw_ingress_policy_watches_total", "Watches of nodes, by how they began.", ["began"])

logger = log(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """A record, whose it is, and where it lies."""

    signed: Signed
    tenant_id: UUID
    node_id: str | None  # of records that are for one node alone
    partition: int
    offset: int


@dataclass(slots=True, eq=False)
class _Watcher:
    """A node's stream of news. Changes that it has not taken yet are remembered by key: a slow node costs no more."""

    node: NodeCredential
    changed: dict[bytes, None] = field(default_factory=dict)
    confirmed: Signed | None = None  # that it was told last
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def may_know(self, held: _Held) -> bool:
        return self.node.serves(held.tenant_id) if held.node_id is None else held.node_id == self.node.node_id


class PolicyFeed:
    """Follows the policy topic; `run` it."""

    def __init__(self, new_consumer: Callable[[], AIOKafkaConsumer], topics: Topics, public_key: bytes) -> None:
        self._new_consumer, self._topic = new_consumer, topics.policy
        self._verifier = Verifier(public_key)
        self._held: dict[bytes, _Held] = {}
        self._tenants: dict[UUID, TenantPolicy] = {}
        self._offsets = [0] * self._topic.partitions
        self._incarnation = b""
        self._confirmed: Signed | None = None
        self._watchers: set[_Watcher] = set()
        self.caught_up = asyncio.Event()

    @property
    def public_key(self) -> bytes:
        return self._verifier.public_key

    def tenant(self, tenant_id: UUID) -> TenantPolicy | None:
        return self._tenants.get(tenant_id)

    def owner(self, key: UUID) -> UUID | None:
        """Whose the record with this key is, such as a stream's."""
        held = self._held.get(key.bytes)
        return None if held is None else held.tenant_id

    async def run(self) -> None:
        """Follows the topic from its beginning until it is cancelled."""
        consumer = await connected(self._new_consumer)
        try:
            partitions = [TopicPartition(self._topic.name, n) for n in range(self._topic.partitions)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await ends_of(consumer, partitions)
            while True:
                for tp, records in (await consumer.getmany(timeout_ms=200, max_records=5_000)).items():
                    await self._take(records)
                    self._offsets[tp.partition] = records[-1].offset + 1
                for tp in partitions:  # also behind markers and aborted records
                    self._offsets[tp.partition] = await consumer.position(tp)
                if not self.caught_up.is_set() and all(self._offsets[tp.partition] >= ends[tp] for tp in partitions):
                    logger.info("policy is current", records=len(self._held))
                    self.caught_up.set()
        finally:
            await stopped(consumer)

    async def news(self, node: NodeCredential, known: Known | None) -> AsyncGenerator[PolicyNews, None]:
        """What the node may know: all of it or what changed since `known`, then changes; empty news as a sign of life.

        Begins when the topic has been read to its end.
        """
        await self.caught_up.wait()
        watcher = _Watcher(node)
        self._watchers.add(watcher)
        WATCHERS.inc()
        try:
            yield self._first(watcher, known)
            while True:
                await _woken(watcher.wake, KEEPALIVE_SECONDS)
                changed, watcher.changed = watcher.changed, {}
                told = tuple(self._held[key].signed for key in changed)
                yield PolicyNews(told, known=self._known(node), confirmed=self._unheard(watcher))
        finally:
            self._watchers.discard(watcher)
            WATCHERS.dec()

    def _first(self, watcher: _Watcher, known: Known | None) -> PolicyNews:
        now = self._known(watcher.node)
        mine = filter(watcher.may_know, self._held.values())
        if known is not None and self._is_past(known, now):
            RESUMED.labels("resumed").inc()
            since = known.offsets
            changed = tuple(h.signed for h in mine if h.offset >= since[h.partition])
            return PolicyNews(changed, known=now, public_key=self.public_key, confirmed=self._unheard(watcher))
        RESUMED.labels("snapshot").inc()
        return PolicyNews(
            tuple(h.signed for h in mine),
            of_snapshot=True,
            is_complete=True,
            known=now,
            public_key=self.public_key,
            confirmed=self._unheard(watcher),
        )

    def _unheard(self, watcher: _Watcher) -> Signed | None:
        """The newest confirmation, where the node was not told it."""
        if self._confirmed is watcher.confirmed:
            return None
        watcher.confirmed = self._confirmed
        return self._confirmed

    @staticmethod
    def _is_past(known: Known, now: Known) -> bool:
        """Whether these offsets lie on our log, and not in its future."""
        if known.snapshot != now.snapshot or len(known.offsets) != len(now.offsets):
            return False
        return all(before <= after for before, after in zip(known.offsets, now.offsets, strict=True))

    def _known(self, node: NodeCredential) -> Known:
        """What a node knows that was told everything. The same offsets for other tenants, or of a topic made anew, are others."""
        tenants: Iterable[str] = ("*",) if node.tenants is None else sorted(map(str, node.tenants))
        parts = [self.public_key, node.node_id.encode(), *(t.encode() for t in tenants), self._incarnation]
        return Known(sha256(b"".join(b"%d:%b" % (len(p), p) for p in parts)).digest()[:16], tuple(self._offsets))

    async def _take(self, records: Sequence[ConsumerRecord]) -> None:
        # Thousands may lie there that are not compacted away yet, and only the last says anything: none but that is verified.
        last_confirmed = max((r.offset for r in records if r.key == CONFIRMED.bytes), default=None)
        for n, record in enumerate(records):
            if record.key == CONFIRMED.bytes and record.offset != last_confirmed:
                continue
            if n % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                held = self._checked(record)
            except Invalid as error:
                REFUSED.inc()
                where = f"{record.topic} {record.partition}-{record.offset}"
                logger.error("a record of the policy is refused, the one before it stays", record=where, reason=str(error))
                continue
            self._incarnation = header(record, INCARNATION) or b""
            if record.key == CONFIRMED.bytes:  # nobody's, so everybody's
                self._confirmed = held.signed
                for watcher in self._watchers:
                    watcher.wake.set()
                continue
            self._held[record.key] = held
            for watcher in self._watchers:
                if watcher.may_know(held):
                    watcher.changed[record.key] = None
                    watcher.wake.set()
        RECORDS.set(len(self._held))

    def _checked(self, record: ConsumerRecord) -> _Held:
        """A record of ours, under its key. Raises Invalid."""
        value, signature = record.value or b"", header(record, SIGNATURE) or b""
        if not self._verifier.is_good(value, signature):
            raise Invalid("it does not bear the platform's signature")
        policy = decode_policy(value)
        if policy_key(policy).bytes != record.key:
            raise Invalid("it lies under the key of another record")
        if isinstance(policy, TenantPolicy):
            self._tenants[policy.tenant_id] = policy
        node_id = policy.node_id if isinstance(policy, NodePolicy) else None
        return _Held(Signed(value, signature), policy.tenant_id, node_id, record.partition, record.offset)

    def nodes(self) -> Iterator[str]:
        """Nodes that watch now."""
        return (watcher.node.node_id for watcher in self._watchers)


async def _woken(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, but no longer."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
