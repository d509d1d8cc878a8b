"""Load: samples of sessions, as a node sends them: straight through the ingress, with a credential of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from infra.chaos.commands import Made
from infra.chaos.ledger import Fields, Ledger, Owed
from streams.codec import encode
from streams.generated import ClientSamples, Meta
from streams.ids import derive
from streams.ingress.client import Outgoing, Publisher, Receipt

ROWS: Final = 5
_ARRAYS: Final = ("connected_seconds", "down_bytes", "up_bytes_per_second", "down_bytes_per_second", "packets_sent")


@dataclass(slots=True)
class Sampler:
    publisher: Publisher
    ledger: Ledger
    random: random.Random
    node_id: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sent: int = 0
    _waiting: set[asyncio.Task[None]] = field(default_factory=set)

    async def send(self, tenant_id: UUID, stream: Made) -> None:
        """One record. Returns when it waits for its acknowledgement, which is noted when it comes."""
        self.sent += 1
        stream_id = UUID(stream.id)
        event_id = derive(stream_id, self.node_id, self.sent)
        record = self._record()
        at = record.window_started_at
        meta = Meta(event_id, tenant_id, stream_id, 0, event_id, event_id, at, f"node:{self.node_id}")
        fields = {"up_bytes": list(record.up_bytes), "session_ids": list(record.session_ids)}
        number = await self.ledger.begin("sample", str(tenant_id), stream.id, fields, [owed(event_id, fields)])
        receipt = await self.publisher.publish([Outgoing(encode(record, meta))])
        task = asyncio.create_task(self._acknowledged(number, receipt))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def settled(self) -> None:
        """Returns when everything was acknowledged."""
        while self._waiting:
            await asyncio.wait(self._waiting)

    async def _acknowledged(self, number: int, receipt: Receipt) -> None:
        refused = await receipt
        if refused:
            await self.ledger.answered(number, {"refused": refused[0].reason}, [])
        else:
            await self.ledger.answered(number, {})

    def _record(self) -> ClientSamples:
        now = self.now()
        start = now.replace(microsecond=now.microsecond // 1000 * 1000)

        def figures() -> tuple[int, ...]:
            return tuple(self.random.randint(0, 1 << 40) for _ in range(ROWS))

        return ClientSamples(
            node_id=self.node_id,
            window_started_at=start,
            session_ids=tuple(f"{self.random.getrandbits(64):016x}" for _ in range(ROWS)),
            sampled_at=tuple(start + timedelta(milliseconds=100 * n) for n in range(ROWS)),
            connectors=("HLS",) * ROWS,
            up_bytes=figures(),
            packets_lost=(0,) * ROWS,
            packets_retransmitted=(0,) * ROWS,
            **{name: figures() for name in _ARRAYS},
        )


def owed(event_id: UUID, fields: Fields) -> Owed:
    return Owed("ClientSamples", {"event_id": str(event_id), **fields})


async def keep_sampling(sampler: Sampler, tenant_id: UUID, stream: Made, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await sampler.send(tenant_id, stream)
        await asyncio.sleep(sampler.random.uniform(0.05, 0.3))
