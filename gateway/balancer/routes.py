"""Decisions of the balancer on their way to the log: a bounded queue and one idempotent producer.

Invariant: whoever asks never waits for Kafka. What is queued is appended, retried until it is there; it is lost only with this
process, or when the queue is full, which is counted. An event keeps its id over all retries, so it counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from streams.balancing.geography import coarse
from streams.balancing.score import Choice, Exclusion, Purpose, Weights
from streams.codec import encode, headers
from streams.generated import Meta, RoutingPurpose, ViewerRouted
from streams.ids import new_id
from streams.telemetry import log
from streams.topics import Topic, partition_of

QUEUE_LENGTH: Final = 20_000
BATCH: Final = 500
PAUSE_SECONDS: Final = 0.5
FLUSH_SECONDS: Final = 2.0
EXCLUDED_SHOWN: Final = 64
NOTHING: Final[tuple[tuple[Any, ...], ...]] = ((),) * 7
logger = log(__name__)
queued = Gauge("fw_balancer_routes_queued", "Decisions of the balancer that are not on the log yet")
recorded = Counter("fw_balancer_routes_total", "Decisions of the balancer that are on the log")
lost = Counter("fw_balancer_routes_lost_total", "Decisions of the balancer that never reach the log", ["reason"])
Route = tuple[ViewerRouted, Meta]


def fact(  # what a decision was made from, all of it
    purpose: Purpose, protocol: str, country: str | None, cell: str | None, weights: Weights, choice: Choice
) -> ViewerRouted:
    """A decision as its fact: what it was made from, and nothing that tells who asked."""
    # Two transpositions: nine generators over two dozen candidates took longer than deciding.
    node_ids, measured, scores = zip(*choice.candidates, strict=True) if choice.candidates else NOTHING[:3]
    cpu, ram, bandwidth, distance, has_stream, tags, is_own = zip(*measured, strict=True) if measured else NOTHING
    out = [(node_id, reason) for node_id, reason in choice.excluded if reason is not Exclusion.NOT_FOR_TENANT][:EXCLUDED_SHOWN]
    return ViewerRouted(
        purpose=RoutingPurpose(purpose),
        protocol=protocol,
        country=country,
        h3_cell=coarse(cell),
        node_id=choice.winner,
        weight_cpu=weights.cpu,
        weight_ram=weights.ram,
        weight_bandwidth=weights.bandwidth,
        weight_geo=weights.geo,
        weight_bonus=weights.bonus,
        candidates_total=choice.candidates_total,
        node_ids=node_ids,
        scores=scores,
        cpu_used_ppm=cpu,
        ram_used_ppm=ram,
        bandwidth_used_ppm=bandwidth,
        distance_ppm=distance,
        has_stream=has_stream,
        tag_adjustments=tags,
        is_own=is_own,
        excluded_node_ids=tuple(node_id for node_id, _ in out),
        exclusion_reasons=tuple(str(reason) for _, reason in out),
    )


def meta_of(tenant_id: UUID, aggregate_id: UUID, actor: str, now_ms: int) -> Meta:
    event_id = new_id()
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    return Meta(event_id, tenant_id, aggregate_id, 0, event_id, event_id, at, actor)


class Routes:
    """The queue and who empties it."""

    def __init__(self, producer: AIOKafkaProducer, topic: Topic, queue_length: int = QUEUE_LENGTH) -> None:
        self._producer, self._topic = producer, topic
        self._queue: asyncio.Queue[Route] = asyncio.Queue(queue_length)

    def record(self, event: ViewerRouted, meta: Meta) -> None:
        """Queues a decision; never waits."""
        try:
            self._queue.put_nowait((event, meta))
        except asyncio.QueueFull:
            lost.labels("queue_full").inc()
        queued.set(self._queue.qsize())

    async def run(self) -> None:
        """Appends what is queued until it is cancelled."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._append(batch)
            queued.set(self._queue.qsize())
            for _ in batch:
                self._queue.task_done()

    async def _append(self, batch: Sequence[Route]) -> None:
        """Until the log has all of them."""
        left = [(event, meta, encode(event, meta)) for event, meta in batch]
        while left:
            try:
                sent = [await self._send(event, meta, value) for event, meta, value in left]
                done = await asyncio.gather(*sent, return_exceptions=True)
            except KafkaError as error:  # not even taken: its buffer is full, or it knows no leader
                logger.warning("decisions wait for Kafka", waiting=self._queue.qsize() + len(left), reason=repr(error))
            else:
                recorded.inc(sum(not isinstance(result, BaseException) for result in done))
                left = [route for route, result in zip(left, done, strict=True) if isinstance(result, BaseException)]
            if left:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _send(self, event: ViewerRouted, meta: Meta, value: bytes) -> asyncio.Future[object]:
        future: asyncio.Future[object] = await self._producer.send(
            self._topic.name,
            value,
            key=meta.aggregate_id.bytes,
            partition=partition_of(meta.aggregate_id, self._topic.partitions),
            timestamp_ms=int(meta.occurred_at.timestamp() * 1000),
            headers=headers(event, meta),
        )
        return future

    async def flush(self) -> None:
        """Waits a little for the log to have everything: for a process that is told to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), FLUSH_SECONDS)
        if waiting := self._queue.qsize():
            lost.labels("stopped").inc(waiting)
            logger.warning("decisions are lost: Kafka did not take them in time", decisions=waiting)
