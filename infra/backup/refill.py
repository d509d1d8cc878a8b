"""Writes a partition again so that every record has the offset it had.

Invariant: a reader of committed records sees the same ones at the same offsets as before. Kafka lets nobody choose an offset,
so the offsets in between, which commit markers and aborted records had, are taken by others of their kind:

* A transaction is open over a stretch of the log. Records are written beside it, by a plain producer; wherever the old log had
  no record, fillers are written inside of it. At the stretch's last gap it is aborted: its marker takes that offset, and all of
  its fillers vanish. Two round trips a gap, where a transaction for each gap would be five and a pause.
* A stretch with a single gap of one offset gets a transaction that names the partition and writes nothing but its marker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from itertools import pairwise
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import RecordMetadata

from streams.faust_batches.fetched import ConsumerRecord

FILLERS_PER_BATCH: Final = 20_000
GAPS_PER_TRANSACTION: Final = 300
MARKER_SECONDS: Final = 30.0


class NotAsBefore(Exception):
    """A record stands at another offset than it should: somebody else writes to this log."""


def writer(bootstrap: str, transactional_id: str | None) -> AIOKafkaProducer:
    """A producer for a refill: of records without an id, of fillers with one."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        client_id=f"refill-{transactional_id}",
        transactional_id=transactional_id,
        acks="all",
        enable_idempotence=True,
        max_batch_size=1 << 20,
        max_request_size=4 << 20,
        # A transaction that the broker ends by itself leaves its marker where a record belongs.
        transaction_timeout_ms=600_000,
        request_timeout_ms=30_000,
        retry_backoff_ms=10,
    )


class Refill:
    """One partition, from an empty log on. The caller owns the clients; nobody else may write meanwhile."""

    def __init__(self, plain: AIOKafkaProducer, fillers: AIOKafkaProducer, ends: AIOKafkaConsumer, tp: TopicPartition) -> None:
        self._plain, self._fillers, self._ends, self._tp = plain, fillers, ends, tp
        self.position = 0
        """The offset that comes next."""

    async def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Writes records at the offsets that they have, in order; what lies in between is filled."""
        runs = runs_of(records)
        for n in range(0, len(runs), GAPS_PER_TRANSACTION):
            await self._write_stretch(runs[n : n + GAPS_PER_TRANSACTION])

    async def fill(self, end: int, timestamp_ms: int) -> None:
        """Goes on to an offset without a record."""
        if end > self.position:
            await self._fillers.begin_transaction()
            await self._end_with_gap(end, timestamp_ms)

    async def _write_stretch(self, runs: Sequence[Sequence[ConsumerRecord]]) -> None:
        """Writes runs, between any two of which lies a gap, and perhaps one before the first."""
        if len(runs) > 1 or runs[0][0].offset > self.position:
            await self._fillers.begin_transaction()
        for run in runs:
            first, timestamp_ms = run[0].offset, run[0].timestamp
            if first > self.position and run is runs[-1]:
                await self._end_with_gap(first, timestamp_ms)
            elif first > self.position:
                await self._fill(first - self.position, timestamp_ms)
            await self._write_run(run)

    async def _end_with_gap(self, end: int, timestamp_ms: int) -> None:
        """Takes the offsets up to `end`, the last of them by the marker that ends the open transaction."""
        await self._fill(end - self.position - 1, timestamp_ms)
        # Private: there is no public way to name a partition without writing to it. A test watches that it does what we need.
        transaction = self._fillers._txn_manager
        transaction.maybe_add_partition_to_txn(self._tp)
        while self._tp not in transaction.txn_partitions:  # noqa: ASYNC110  the client tells nobody
            await asyncio.sleep(0.001)
        await self._fillers.abort_transaction()
        self.position = end
        async with asyncio.timeout(MARKER_SECONDS):
            # The coordinator answers before its marker is written.
            while (there := (await self._ends.end_offsets([self._tp]))[self._tp]) < end:  # noqa: ASYNC110  the broker does not
                await asyncio.sleep(0.001)
        self._require(there, end)

    async def _fill(self, count: int, timestamp_ms: int) -> None:
        while count > 0:
            some = min(count, FILLERS_PER_BATCH)
            batch = self._fillers.create_batch()
            for _ in range(some):
                batch.append(key=None, value=None, timestamp=timestamp_ms)
            await self._sent(await self._fillers.send_batch(batch, self._tp.topic, partition=self._tp.partition), some)
            count -= some

    async def _write_run(self, run: Sequence[ConsumerRecord]) -> None:
        """Writes records that follow one another."""
        batch, count = self._plain.create_batch(), 0
        for record in run:
            about = {"key": record.key, "value": record.value, "timestamp": record.timestamp, "headers": list(record.headers)}
            if batch.append(**about) is None:
                await self._sent(await self._plain.send_batch(batch, self._tp.topic, partition=self._tp.partition), count)
                batch, count = self._plain.create_batch(), 0
                batch.append(**about)
            count += 1
        await self._sent(await self._plain.send_batch(batch, self._tp.topic, partition=self._tp.partition), count)

    async def _sent(self, sent: Awaitable[RecordMetadata], count: int) -> None:
        self._require((await sent).offset, self.position)
        self.position += count

    def _require(self, offset: int, wanted: int) -> None:
        if offset != wanted:
            raise NotAsBefore(
                f"{self._tp.topic}/{self._tp.partition}: the log is at {offset} and should be at {wanted}: somebody else writes "
                "to it. Stop every other process of this installation, delete what was restored, and restore again."
            )


def runs_of(records: Sequence[ConsumerRecord]) -> list[Sequence[ConsumerRecord]]:
    """Records, cut where an offset is left out."""
    if not records:
        return []
    cuts = [0, *(n for n, (a, b) in enumerate(pairwise(records), start=1) if b.offset != a.offset + 1), len(records)]
    return [records[a:b] for a, b in pairwise(cuts)]
