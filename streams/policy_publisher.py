"""Writes the policy: a fold of the decisions becomes signed records on a compacted topic.

Invariants
* Of each key the newest record on the topic is what the decisions up to the committed position say, signed with the
  installation's key. A record and the position behind the decisions that it follows from are one transaction.
* Whatever stands there was written by someone who had read all that stood there before (the order of the steps in `_live`).
  So nothing is written twice, and a version is never given to two different records.
* A record lies in the partition of its tenant's decisions: the two topics have the same count.
* Records are never taken back. Of what is deleted, the record says so.
* A `PolicyConfirmed` lies behind everything that was decided before its time (`policy_confirmations.py`).

Every record names, in a header, the incarnation of the topic: random, chosen by who wrote its first record. Offsets mean
something only within one; a topic that was made anew has another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from prometheus_client import Counter, Gauge, Histogram

from streams.codec import decode, decode_policy, encode_policy, name_of
from streams.errors import Invalid, Superseded
from streams.generated import Event, Meta, Policy, PolicyConfirmed
from streams.ids import new_id
from streams.kafka import Cluster, stopped
from streams.policies import CONFIRMED
from streams.policy_confirmations import PARTITION, Clock, Confirmations, utc_now
from streams.policy_signing import Signer
from streams.telemetry import log
from streams.topics import Topic, Topics

SIGNATURE: Final = "signature"
INCARNATION: Final = "incarnation"
RECORDS_AT_ONCE: Final = 500  # of one transaction
FETCHED_AT_ONCE: Final = 2000
POSITION_SECONDS: Final = 5.0  # how long a position waits that comes with no record
BACKOFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)

WRITTEN = Counter("fw_policy_written_total", "Records written.", ["kind"])
KNOWN = Gauge("fw_policy_records", "Records that the topic has, each the newest of its key.")
TRANSACTION = Histogram("fw_policy_transaction_seconds", "From the decisions in hand to the records on the log.")

logger = log(__name__)
Place = tuple[UUID, int]  # a record's key and its partition
_Standing = dict[Place, ConsumerRecord]  # the newest record of each key in each partition


class BrokenDecisions(Exception):
    """A decision cannot be read. The policy stands still, and stays right as of its position; a person has to look."""


class Folded(Protocol):
    """The policy, in memory (`projections.policy.Policies`)."""

    @property
    def handles(self) -> frozenset[str]: ...  # names of the decisions that it is made from

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[UUID]: ...
    def __getitem__(self, key: UUID) -> Policy: ...
    def apply(self, event: Event, meta: Meta) -> Iterable[UUID]: ...
    def number(self, key: UUID, version: int) -> Policy: ...


class PolicyPublisher:
    """Runs until it is cancelled. One process writes; a second one ends the first, whose `run` raises Superseded."""

    def __init__(
        self, cluster: Cluster, topics: Topics, secret_key: bytes, fold: Callable[[], Folded], clock: Clock = utc_now
    ) -> None:
        self._cluster, self._decisions, self._policy = cluster, topics.decisions, topics.policy
        self._signer, self._new_fold = Signer(secret_key), fold
        self._group_id, self._clock = f"{topics.prefix}policy", clock
        self.is_current = False  # everything that was decided before the start is on the topic

    async def run(self) -> None:
        """Lives until one ends with what no new life can cure: Superseded, BrokenDecisions, a bug."""
        failures = 0
        while True:
            try:
                await self._live()
            except (ProducerFenced, InvalidProducerEpoch) as error:
                raise Superseded("another process writes the policy: let one of them run") from error
            except (KafkaError, OSError) as error:
                failures = 1 if self.is_current else failures + 1
                pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
                logger.warning("begins again", reason=repr(error), pause_seconds=pause)
                await asyncio.sleep(pause)
            finally:
                self.is_current = False

    async def _live(self) -> None:
        """The order is the correctness:

        1. start the transactional producer: fences every older publisher and ends its open transaction
        2. only then read what stands on the policy topic, up to its end taken read_uncommitted
        3. fold the decisions, from their beginning up to their end
        4. write what differs from 2, then what further decisions change; records and position in one transaction
        Any error ends it: producer and state are dropped, and the next life begins at 1.
        """
        producer = self._cluster.transactional_producer(f"policy-{self._policy.name}")
        consumer, whole = self._cluster.reader("policy"), self._cluster.reader("policy-ends", committed=False)
        try:
            await producer.start()
            await consumer.start()
            await whole.start()
            standing = await self._standing(consumer, whole)
            fold, places, positions = await self._folded(consumer, whole)
            different = list(_different(fold, standing, places, self._signer))
            incarnation = next(filter(None, (header(r, INCARNATION) for r in standing.values())), new_id().bytes)
            logger.info("policy is folded", records=len(fold), different=len(different))
            await self._write(producer, fold, incarnation, different, positions)
            self.is_current = True
            confirmations = Confirmations(consumer, whole, self._decisions, _confirmed(standing), self._clock)
            await self._follow(producer, consumer, fold, incarnation, confirmations)
        finally:
            await asyncio.gather(stopped(producer), stopped(consumer), stopped(whole))

    async def _standing(self, consumer: AIOKafkaConsumer, whole: AIOKafkaConsumer) -> _Standing:
        found: _Standing = {}
        async for record in to_the_end(consumer, whole, self._policy):
            with contextlib.suppress(ValueError):  # no key of ours: not written by us
                found[UUID(bytes=record.key or b""), record.partition] = record
        return found

    async def _folded(
        self, consumer: AIOKafkaConsumer, whole: AIOKafkaConsumer
    ) -> tuple[Folded, Sequence[Place], dict[TopicPartition, int]]:
        """The fold up to the decisions' end, where each record belongs, and the position that was reached."""
        fold, places = self._new_fold(), dict[UUID, int]()
        async for record in to_the_end(consumer, whole, self._decisions):
            places.update((key, record.partition) for key in self._take(fold, record))
        partitions = _partitions(self._decisions)
        return fold, list(places.items()), {tp: await consumer.position(tp) for tp in partitions}

    def _take(self, fold: Folded, record: ConsumerRecord) -> Iterable[UUID]:
        """Raises BrokenDecisions."""
        try:
            return fold.apply(*decode(record.value)) if name_of(record.value or b"") in fold.handles else ()
        except Invalid as error:
            where = f"{record.topic} {record.partition}-{record.offset}"
            raise BrokenDecisions(f"{where}: {error}: the policy stands still until this can be read") from error

    async def _follow(
        self,
        producer: AIOKafkaProducer,
        consumer: AIOKafkaConsumer,
        fold: Folded,
        incarnation: bytes,
        confirmations: Confirmations,
    ) -> None:
        positions, written_at = dict[TopicPartition, int](), asyncio.get_running_loop().time()
        while True:
            fetched = await consumer.getmany(timeout_ms=int(1000 * POSITION_SECONDS), max_records=FETCHED_AT_ONCE)
            changed: dict[UUID, int] = {}
            for tp, records in fetched.items():
                for record in records:
                    changed.update((key, tp.partition) for key in self._take(fold, record))
                positions[tp] = records[-1].offset + 1
            confirmed = await confirmations.next()
            if changed or confirmed or (positions and asyncio.get_running_loop().time() - written_at > POSITION_SECONDS):
                await self._write(producer, fold, incarnation, list(changed.items()), positions, confirmed)
                positions, written_at = {}, asyncio.get_running_loop().time()

    async def _write(
        self,
        producer: AIOKafkaProducer,
        fold: Folded,
        incarnation: bytes,
        places: Sequence[Place],
        positions: Mapping[TopicPartition, int],
        confirmed: PolicyConfirmed | None = None,
    ) -> None:
        """Records and position. Of more than go into one transaction, the last one moves the position and confirms."""
        for at in range(0, max(1, len(places)), RECORDS_AT_ONCE):
            part = places[at : at + RECORDS_AT_ONCE]
            with TRANSACTION.time():
                await producer.begin_transaction()
                sent = [await self._send(producer, fold[key], key, n, incarnation) for key, n in part]
                is_last = at + RECORDS_AT_ONCE >= len(places)
                if is_last and confirmed:
                    sent.append(await self._send(producer, confirmed, CONFIRMED, PARTITION, incarnation))
                await asyncio.gather(*sent)
                if is_last and positions:
                    await producer.send_offsets_to_transaction(dict(positions), self._group_id)
                await producer.commit_transaction()
            for key, _ in part:
                WRITTEN.labels(type(fold[key]).__name__).inc()
        KNOWN.set(len(fold))

    async def _send(
        self, producer: AIOKafkaProducer, policy: Policy, key: UUID, partition: int, incarnation: bytes
    ) -> asyncio.Future[object]:
        value = encode_policy(policy)
        headers = [
            ("tenant_id", str(policy.tenant_id).encode()),
            ("event_type", type(policy).__name__.encode()),
            (SIGNATURE, self._signer.sign(value)),
            (INCARNATION, incarnation),
        ]
        sent: asyncio.Future[object] = await producer.send(
            self._policy.name, value, key=key.bytes, partition=partition, headers=headers
        )
        return sent


def _different(fold: Folded, standing: _Standing, places: Iterable[Place], signer: Signer) -> Iterator[Place]:
    """What the topic does not say, or not with our signature. A version that is there is never taken back, or given again."""
    for place in places:
        key, record = place[0], standing.get(place)
        policy = None if record is None else _read(record.value)
        if policy is None or record is None:
            yield place
            continue
        is_same = replace(policy, version=fold[key].version) == fold[key]
        if is_same and policy.version >= fold[key].version and signer.sign(record.value) == header(record, SIGNATURE):
            fold.number(key, policy.version)
        else:
            fold.number(key, max(fold[key].version, policy.version if is_same else policy.version + 1))
            yield place


def _confirmed(standing: _Standing) -> int:
    """Version of the newest confirmation on the topic; 0: there is none."""
    record = standing.get((CONFIRMED, PARTITION))
    policy = None if record is None else _read(record.value)
    return 0 if policy is None else policy.version


def _read(value: bytes | None) -> Policy | None:
    try:
        return decode_policy(value or b"")
    except Invalid:
        return None


def header(record: ConsumerRecord, name: str) -> bytes | None:
    return next((value for key, value in record.headers if key == name), None)


def _partitions(topic: Topic) -> list[TopicPartition]:
    return [TopicPartition(topic.name, n) for n in range(topic.partitions)]


async def to_the_end(committed: AIOKafkaConsumer, whole: AIOKafkaConsumer, topic: Topic) -> AsyncIterator[ConsumerRecord]:
    """Everything on a topic up to where it ends now; `committed` stays there.

    The end is taken by `whole`, which is read_uncommitted: that of a read_committed reader lies before a transaction whose
    markers are still being written, also where its commit was acknowledged. The position of `committed` also moves over aborted
    records and markers, so that a tail of nothing but these has an end, too.
    """
    partitions = _partitions(topic)
    committed.assign(partitions)
    await committed.seek_to_beginning(*partitions)
    ends = await whole.end_offsets(partitions)
    waiting = [tp for tp in partitions if ends[tp]]
    while waiting:
        for records in (await committed.getmany(timeout_ms=200, max_records=FETCHED_AT_ONCE)).values():
            for record in records:
                yield record
        waiting = [tp for tp in waiting if await committed.position(tp) < ends[tp]]
