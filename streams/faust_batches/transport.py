"""Faust's Kafka transport, changed so that one fetched list of records travels as one Faust message.

Faust pays about 130 microseconds a message (two tasks and a future each): here it pays that once a batch. Positions come from
the store on every assignment; Kafka's committed offset is for lag displays only. The private names of Faust that this leans
on are in PRIVATE and under contract tests, and the versions are pinned.

Invariant: no record that was fetched before the latest seek is ever handled. Faust's consumer thread runs two calls at once,
so a fetch can straddle a seek: a lock keeps them apart, and every batch carries the number of the seek it was fetched after.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import aiokafka
import faust
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP as FaustTP  # noqa: N811
from faust.types import Message

from streams.faust_batches.fetched import TP, ConsumerRecord, Halted
from streams.fetching import wait_as_it_fits
from streams.telemetry import log

if TYPE_CHECKING:
    from streams.faust_batches.app import BatchApp

PRIVATE: Final[Mapping[type, tuple[str, ...]]] = {
    faust.App: ("_new_transport",),
    driver.Consumer: ("_new_consumer_thread", "_getmany", "_to_message", "_add_gap"),
    TableManager: ("_update_channels",),
    GroupCoordinator: ("reset_generation",),
    driver.AIOKafkaConsumerThread: ("_create_worker_consumer", "_ensure_consumer", "call_thread"),
}
for _class, _names in PRIVATE.items():  # an upgrade that renames one must fail at import, not at night
    for _name in _names:
        if not hasattr(_class, _name):
            raise ImportError(f"faust-streaming changed: {_class.__name__}.{_name} is gone")

EXIT_SUPERSEDED: Final = 3
LAST_COMMIT_SECONDS: Final = 1.0
LONGEST_FETCH_SECONDS: Final = 0.2  # a seek waits for the running fetch


class LostEvents(Halted):
    """A stored position is outside of its topic: retention went past it, or the topic was made anew."""


class Batch(NamedTuple):
    """Records of one partition, and the number of the seek that they were fetched after."""

    epoch: int
    records: Sequence[ConsumerRecord]


def size_bytes(record: ConsumerRecord) -> int:
    """About what a record takes in memory."""
    return 64 + len(record.key or b"") + len(record.value or b"")


def split(records: Sequence[ConsumerRecord], max_records: int, max_bytes: int) -> Iterator[Sequence[ConsumerRecord]]:
    """Cuts one fetched list into batches; a single record that is larger than `max_bytes` goes alone."""
    start = size = 0
    for n, record in enumerate(records):
        more = size_bytes(record)
        if n > start and (n - start >= max_records or size + more > max_bytes):
            yield records[start:n]
            start, size = n, 0
        size += more
    yield records[start:]


def left_group(kafka: Any) -> BaseException | None:
    """Why a consumer takes no part in its group any more, for ever; None while it does.

    aiokafka ends that task on whatever it did not foresee, such as a broker that comes back and names no broker yet. Who calls
    its getmany() is told; Faust does not, and would wait for its partitions for ever.
    """
    task = getattr(kafka._coordinator, "_coordination_task", None)
    return task.exception() if task is not None and task.done() and not task.cancelled() else None


def _ours(tp: Any) -> TP:
    return TP(tp[0], tp[1])


def _kafkas(tp: TP) -> TopicPartition:
    return TopicPartition(tp.topic, tp.partition)


class NamedConsumer(aiokafka.AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """A consumer that ends the process when its name in the group was taken by another.

    The broker forgets the member that bore the name before, and says so at its next heartbeat or commit. aiokafka would join
    again and take the name back, and so on for ever. At once, because whoever joins first takes it.
    """

    def __init__(self, linger_ms: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._linger_ms = linger_ms

    async def start(self) -> None:
        await super().start()
        wait_as_it_fits(self, self._linger_ms)
        coordinator = self._coordinator
        if coordinator._group_instance_id is None:
            return
        reset = coordinator.reset_generation

        def forgotten() -> None:
            if coordinator.generation > 0 and not coordinator._closing.done():
                name = coordinator._group_instance_id
                log(__name__).error("the group has forgotten this worker: another bears its name now", name=name)
                sys.stderr.flush()
                os._exit(EXIT_SUPERSEDED)
            reset()

        coordinator.reset_generation = forgotten


class BatchThread(driver.AIOKafkaConsumerThread):
    """Owns the aiokafka consumer. Everything here runs in the consumer's own thread."""

    mundane_level = "debug"

    def _create_worker_consumer(self, transport: Any) -> Any:
        # Only public arguments of aiokafka: settings of Faust that are not listed here have no effect.
        app = cast("BatchApp", self.app)
        conf = app.conf
        return NamedConsumer(
            int(1000 * app.linger_seconds),
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            client_id=conf.broker_client_id,
            enable_auto_commit=False,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            max_poll_records=app.max_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=app.max_bytes,
            fetch_max_bytes=4 * app.max_bytes,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            retry_backoff_ms=50,
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def bounds(self, tps: Collection[TP]) -> tuple[Mapping[TP, int], Mapping[TP, int]]:
        """First offset and end of each partition, asked of the broker. The end is the last stable offset."""
        consumer, partitions = self._ensure_consumer(), [_kafkas(tp) for tp in tps]
        first, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return {_ours(tp): o for tp, o in first.items()}, {_ours(tp): o for tp, o in end.items()}

    async def ends_and_fetched(self, tps: Collection[TP]) -> tuple[Mapping[TP, int], Mapping[TP, int]]:
        """Last stable offset of each partition, and where fetching stands, which passes aborted and control records."""
        consumer = self._ensure_consumer()
        end = await consumer.end_offsets([_kafkas(tp) for tp in tps])
        return {_ours(tp): o for tp, o in end.items()}, {tp: await consumer.position(_kafkas(tp)) for tp in tps}

    async def commit_display(self, offsets: Mapping[TP, int]) -> None:
        """Commits what lag displays show. Whatever goes wrong here is no reason to stop."""
        consumer = self._ensure_consumer()
        mine = {_kafkas(tp): OffsetAndMetadata(o, "") for tp, o in offsets.items() if _kafkas(tp) in consumer.assignment()}
        if not mine:
            return
        committing = asyncio.ensure_future(consumer.commit(mine))
        try:
            await asyncio.shield(committing)
        except KafkaError as error:
            self.log.info("lag commit skipped: %r", error)
        except asyncio.CancelledError:
            # The worker stops. A part of aiokafka's commit runs on by itself, and complains where nobody hears how it ended.
            await asyncio.wait([committing], timeout=LAST_COMMIT_SECONDS)
            if not committing.cancel() and not committing.cancelled():
                committing.exception()
            raise


class BatchConsumer(driver.Consumer):
    """Hands out batches, and starts where the store says."""

    mundane_level = "debug"

    @property
    def batches(self) -> BatchApp:
        return cast("BatchApp", self.app)

    @property
    def thread(self) -> BatchThread:
        return cast(BatchThread, self._thread)

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        """{partition: [record, …]} becomes {partition: [batch, …]}."""
        app = self.batches
        async with app.fetching:
            fetched = await super()._getmany(active_partitions, min(timeout, LONGEST_FETCH_SECONDS))
            epoch = app.seeks
        return {
            tp: [Batch(epoch, b) for b in split(records, app.max_records, app.max_bytes)]
            for tp, records in fetched.items()
            if records
        }

    def _to_message(self, tp: Any, record: Any) -> Any:
        """One batch becomes one message, at the offset of its last record."""
        batch: Batch = record
        last = batch.records[-1]
        app = self.batches
        if batch.epoch == app.seeks:
            app.delivered[_ours(tp)] = last.offset + 1
        return Message(
            topic=tp.topic,
            partition=tp.partition,
            offset=last.offset,
            timestamp=last.timestamp / 1000,
            timestamp_type=0,
            headers=None,
            key=None,
            value=batch,  # type: ignore[arg-type]  # Faust says bytes; the raw codec passes anything
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            tp=tp,
            generation_id=app.consumer_generation_id,
        )

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Offsets jump by a batch: that is no gap."""

    def on_buffer_full(self, tp: Any) -> None:
        """Faust would stop fetching the partition and, with none left, sleep a second. The full queue holds us back by itself."""

    async def seek_to_committed(self) -> Mapping[FaustTP, int]:
        """Called by Faust on every assignment, and the only hook that has the last word on the position."""
        app = self.batches
        async with app.fetching:
            app.seeks += 1
            tps = [_ours(tp) for tp in self.assignment()]
            try:
                where = await self._positions(tps) if tps else {}
            except Exception as error:
                app.failed("positions could not be loaded: the process exits", error)
                raise
            if where:
                # Not seek(): that would touch the consumer from the wrong thread.
                await self.seek_wait({cast(FaustTP, _kafkas(tp)): o for tp, o in where.items()})
            app.resumed(where)
        return {FaustTP(*tp): o for tp, o in where.items()}

    async def _positions(self, tps: Sequence[TP]) -> Mapping[TP, int]:
        stored = await self.batches.load_offsets(tps)
        first, end = await self.thread.call_thread(self.thread.bounds, tps)
        where = {}
        for tp in tps:
            at = stored.get(tp)
            where[tp] = first[tp] if at is None else at
            if not first[tp] <= where[tp] <= end[tp]:
                raise LostEvents(
                    f"{tp.topic}/{tp.partition}: the stored position is {at}, but the topic holds {first[tp]} to {end[tp]}. "
                    "Rebuild the projection, or restore the topic."
                )
        return where


# Mode names a service's logger after its module; what Faust says there belongs to Faust's.
BatchThread.logger = BatchConsumer.logger = driver.logger


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer
