"""How long a projection that was killed takes until it has stored what was on the log when it died.

Read from its own metrics, every 20 ms. On a topic of transactions the last offset belongs to a marker, which no reader stores.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from infra.chaos.platform import POLL_SECONDS, Platform
from streams.kafka import reader
from streams.topics import Topics

ASK_SECONDS: Final = 2.0
SETTLED_SECONDS: Final = 2.5  # after so long the process itself knows whether only markers follow
_SAMPLE: Final = re.compile(r"^fw_projection_(lag_records|next_offset)\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
Place = tuple[str, int]  # topic and partition


@dataclass(slots=True)
class Recovery:
    """Knows where the log ends, as long as Kafka answers."""

    platform: Platform
    _consumer: AIOKafkaConsumer | None = field(default=None)

    async def close(self) -> None:
        if self._consumer:
            await self._consumer.stop()

    async def ends(self) -> Mapping[Place, int]:
        """The ends of all topics; empty where Kafka does not answer at once."""
        topics = Topics()
        places = [
            TopicPartition(topic.name, n)
            for topic in (topics.decisions, topics.facts, topics.nodes, topics.samples)
            for n in range(topic.partitions)
        ]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                if self._consumer is None:
                    consumer = reader(self.platform.kafka, "chaos-ends")
                    await consumer.start()
                    self._consumer = consumer
                found = await self._consumer.end_offsets(places)
        except (KafkaError, TimeoutError, OSError):
            return {}
        return {(tp.topic, tp.partition): offset for tp, offset in found.items()}

    async def caught_up(self, part: str, ends: Mapping[Place, int]) -> None:
        """Returns when the projection has stored everything below `ends`. No projection, no ends: at once."""
        url = self.platform.metrics(part)
        if not part.startswith("projections-") or not ends or url is None:
            return
        began = time.monotonic()
        async with httpx.AsyncClient(timeout=ASK_SECONDS) as client:
            while True:
                try:
                    positions, lag = parsed((await client.get(url)).text)
                except httpx.HTTPError:
                    positions, lag = {}, {}
                behind = [p for p, at in positions.items() if at < ends.get(p, 0) - (p[0] == Topics().decisions.name)]
                if positions and (not behind or (time.monotonic() - began > SETTLED_SECONDS and not any(lag.values()))):
                    return
                await asyncio.sleep(POLL_SECONDS)


def parsed(text: str) -> tuple[dict[Place, float], dict[Place, float]]:
    """Positions and lag of a projection, from the text of its metrics."""
    positions: dict[Place, float] = {}
    lag: dict[Place, float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        known = dict(_LABEL.findall(labels))
        (lag if name == "lag_records" else positions)[known["topic"], int(known["partition"])] = float(value)
    return positions, lag
