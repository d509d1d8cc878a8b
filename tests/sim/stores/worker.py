"""A stand-in for the Faust app of one projection that keeps the adapter's contract (`streams.faust_batches`).

* At every assignment the positions of all partitions come from the store; one that the log does not hold ends the worker.
* A handler gets the records of a partition in order, one batch at a time, whichever partition they are of.
* A handler that raises ends the process. What the group thinks of a frozen process does not reach it before it wakes up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from projections.model import TP, ConsumerRecord, Store
from streams.faust_batches.transport import LostEvents
from tests.fact_log import Raw
from tests.sim.broker import Broker
from tests.sim.loop import Process

Open = Callable[[], Awaitable[Store]]


def records(broker: Broker, tp: TP, start: int, count: int) -> Sequence[ConsumerRecord]:
    """What a fetch gives: committed records from an offset on."""
    found = [entry for entry in broker.log(tp.topic, tp.partition).read(committed=True) if entry.offset >= start]
    return [Raw(tp.topic, tp.partition, e.offset, e.timestamp_ms, e.value, e.key, e.headers) for e in found[:count]]


@dataclass(slots=True)
class Assigned:
    tps: Sequence[TP]


@dataclass(slots=True)
class Fetched:
    tp: TP
    count: int


@dataclass(slots=True, eq=False)
class Worker:
    name: str
    process: Process
    broker: Broker
    open: Open
    positions: dict[TP, int] = field(default_factory=dict)
    todo: asyncio.Queue[Assigned | Fetched] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] = field(init=False)

    def begin(self) -> None:
        self.task = self.process.start(self._run())

    @property
    def lives(self) -> bool:
        return not self.process.is_killed and not self.task.done()

    @property
    def is_idle(self) -> bool:
        return self.todo.empty() and not self.process.is_frozen

    async def _run(self) -> None:
        store = await self.open()
        while True:
            match await self.todo.get():
                case Assigned(tps):
                    self.positions = dict(self._checked(tps, await store.load_offsets(tps)))
                case Fetched(tp, count):
                    await self._handle(store, tp, count)

    async def _handle(self, store: Store, tp: TP, count: int) -> None:
        if tp not in self.positions:
            return  # it was fetched before the assignment changed
        batch = records(self.broker, tp, self.positions[tp], count)
        if batch:
            await store.apply(tp, batch)
            self.positions[tp] = batch[-1].offset + 1

    def _checked(self, tps: Sequence[TP], stored: Mapping[TP, int | None]) -> Mapping[TP, int]:
        where = {}
        for tp in tps:
            at = stored.get(tp)
            log = self.broker.log(tp.topic, tp.partition)
            where[tp] = log.start if at is None else at
            if not log.start <= where[tp] <= log.stable_end:
                raise LostEvents(
                    f"{tp.topic}/{tp.partition}: the stored position is {at}, the topic holds {log.start} to {log.end}"
                )
        return where
