"""Records on their way to the log: encoded, in order, as few requests as possible."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from streams.codec import Header


@dataclass(frozen=True, slots=True)
class Line:
    key: bytes
    value: bytes | None
    headers: Sequence[Header]


async def send(producer: AIOKafkaProducer, topic: str, partition: int, lines: Sequence[Line]) -> list[Future[object]]:
    """Sends lines to a partition; the futures end when the broker has them.

    `send_batch` costs a future per batch instead of per record, and keeps the order.
    """
    sent: list[Future[object]] = []
    batch = producer.create_batch()
    for line in lines:
        if batch.append(timestamp=None, key=line.key, value=line.value, headers=list(line.headers)) is None:  # full
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(timestamp=None, key=line.key, value=line.value, headers=list(line.headers))  # the first always fits
    if batch.record_count():
        sent.append(await producer.send_batch(batch, topic, partition=partition))
    return sent
