"""One partition of the command topic and its only writer.

Invariant: whatever stands on the decisions partition was written by someone who had read all that stood there before. The
order of the four steps is what makes it so, against every zombie; Kafka's consumer group only proposes who should write.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from commands import metrics
from commands.batch import Written, decide_batch
from commands.fold import fold
from commands.lines import send
from commands.state import PartitionState
from streams import telemetry
from streams.kafka import Cluster, stopped
from streams.topics import Topics

log = telemetry.log(__name__)

BATCH_MAX_COMMANDS: Final = 500
GAP_SECONDS: Final = 0.003
"""Pause after a commit: the coordinator still writes its markers, and a transaction begun at once waits 20 ms for them in
aiokafka."""
FETCH_MS: Final = 60_000
LAST_TRANSACTION_SECONDS: Final = 5.0

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Partition:
    """Decides the commands of one partition, from `run` to its cancellation or failure.

    `group` belongs to the worker; here it only tells offsets, and has to be read_uncommitted for their ends to be the true ones.
    """

    def __init__(
        self,
        cluster: Cluster,
        topics: Topics,
        group: AIOKafkaConsumer,
        group_id: str,
        partition: int,
        clock: Clock = utc_now,
    ) -> None:
        self._cluster, self._topics, self._group, self._group_id, self._clock = cluster, topics, group, group_id, clock
        self._commands = TopicPartition(topics.commands.name, partition)
        self._decisions = TopicPartition(topics.decisions.name, partition)
        self.is_ready = False
        self.state: PartitionState | None = None
        """What is folded and decided so far; it may be ahead of the log by the transaction under way."""

    async def run(self) -> None:
        """Decides for as long as it is let. The order is the correctness:

        1. start the transactional producer: fences every older writer and ends its open transaction
        2. only then read the committed position on the command partition
        3. only then fold the decisions partition, up to its end taken read_uncommitted
        4. decide batches, one transaction each: events, outcomes, dead letters and position together
        Any error ends it: producer and state are dropped, the caller begins again at 1.
        """
        began = time.perf_counter()
        transactional_id = f"decide-{self._decisions.topic}-{self._decisions.partition}"
        producer = self._cluster.transactional_producer(transactional_id)
        log_reader = self._cluster.reader(transactional_id)
        try:
            await producer.start()
            position = await self._position()
            state = self.state = await self._fold(log_reader)
            log_reader.assign([self._commands])
            log_reader.seek(self._commands, position)
            with self._owned(began, position, len(state.answers)):
                await self._decide(producer, log_reader, state)
        finally:
            # No abort, no flush: the next start of this id ends whatever is open. Stopping a fenced producer may hang.
            await asyncio.gather(stopped(producer), stopped(log_reader))

    async def _position(self) -> int:
        committed: int | None = await self._group.committed(self._commands)
        beginning: int = (await self._group.beginning_offsets([self._commands]))[self._commands]
        if committed is None:
            return beginning
        if committed < beginning:
            log.error(
                "commands were deleted before anyone decided them", partition=self._commands.partition, lost=beginning - committed
            )
        return max(committed, beginning)

    async def _fold(self, log_reader: AIOKafkaConsumer) -> PartitionState:
        beginnings = await self._group.beginning_offsets([self._decisions])
        ends = await self._group.end_offsets([self._decisions])
        await log_reader.start()
        return await fold(log_reader, self._decisions, beginnings[self._decisions], ends[self._decisions])

    async def _decide(self, producer: AIOKafkaProducer, log_reader: AIOKafkaConsumer, state: PartitionState) -> None:
        """Decides a batch while the transaction of the one before is under way, so state runs ahead of the log by one batch.

        That is safe because the first error ends the partition: state is dropped together with what was decided on it.
        """
        before: asyncio.Task[None] | None = None
        try:
            while True:
                records = await self._fetched(log_reader, before)
                written, began = Written(), time.perf_counter()
                await decide_batch(state, records, written, self._clock())
                if before is not None:
                    await before
                    if room := BATCH_MAX_COMMANDS - len(records):  # what came in the meantime need not wait for another turn
                        late = await log_reader.getmany(timeout_ms=0, max_records=room)
                        if records := late.get(self._commands, []):
                            await decide_batch(state, records, written, self._clock())
                before = asyncio.create_task(self._transact(producer, written, began))
        finally:
            if before is not None:  # let it end although the partition is taken away: readers would wait for an open one
                await asyncio.wait([before], timeout=LAST_TRANSACTION_SECONDS)
                if not before.cancel() and not before.cancelled():
                    before.exception()  # whoever ended this partition has its reason already

    async def _fetched(self, log_reader: AIOKafkaConsumer, before: asyncio.Task[None] | None) -> Sequence[ConsumerRecord]:
        """The next commands, as soon as there are any. Raises what the transaction before raises."""
        while True:
            fetch = asyncio.ensure_future(log_reader.getmany(timeout_ms=FETCH_MS, max_records=BATCH_MAX_COMMANDS))
            try:
                if before is not None and not before.done():
                    await asyncio.wait((fetch, before), return_when=asyncio.FIRST_COMPLETED)
                if before is not None and before.done():
                    before.result()
                records: Sequence[ConsumerRecord] = (await fetch).get(self._commands, [])
                if records:
                    return records
            finally:
                fetch.cancel()

    async def _transact(self, producer: AIOKafkaProducer, written: Written, began: float) -> None:
        partition = self._decisions.partition
        await producer.begin_transaction()
        sent = await send(producer, self._decisions.topic, partition, written.decisions)
        sent += await send(producer, self._topics.dead_letters.name, partition, written.dead_letters)
        # Awaited before the offsets go: both at once costs a retry backoff inside aiokafka now and then.
        await asyncio.gather(*sent)
        await producer.send_offsets_to_transaction({self._commands: written.position}, self._group_id)
        await producer.commit_transaction()
        metrics.transaction_seconds.observe(time.perf_counter() - began)
        written.count()
        await asyncio.sleep(GAP_SECONDS)

    @contextlib.contextmanager
    def _owned(self, began: float, position: int, answers: int) -> Iterator[None]:
        seconds = time.perf_counter() - began
        metrics.fold_seconds.observe(seconds)
        metrics.partitions_owned.inc()
        log.info(
            "partition owned", partition=self._commands.partition, position=position, answers=answers, seconds=round(seconds, 3)
        )
        self.is_ready = True
        try:
            yield
        finally:
            self.is_ready = False
            metrics.partitions_owned.dec()
