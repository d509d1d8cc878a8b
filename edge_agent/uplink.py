"""The way to the platform: facts and data keys up, policy down.

Invariant: a fact leaves the journal when Kafka has it, or when the ingress has said why it never will (it is quarantined with
the reason then). Facts go in the order in which they were written; what was not acknowledged goes again after any interruption.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio
import msgspec

from edge_agent.journal import Entry, Journal
from edge_agent.journal_file import Upkeep
from edge_agent.metrics import now_ms
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.policy_intake import PolicyIntake
from streams.ingress.client import Outgoing, Publisher, Receipt, Refused
from streams.ingress.keys import MAX_ENVELOPES, hand_over
from streams.ingress.limits import ITEM_OVERHEAD_BYTES, MAX_ITEM_BYTES
from streams.ingress.line import Credential, Line, pauses
from streams.ingress.policy_client import watch_policy
from streams.privacy.envelope import DayKeys
from streams.telemetry import log

BATCH_ROWS: Final = 1000
BATCH_BYTES: Final = 512 << 10
BATCHES_IN_FLIGHT: Final = 16  # of these; while the platform is away so many are held in memory
FEW_ROWS: Final = 200
FORGET_SECONDS: Final = 0.05
DAY_KEYS: Final = "day_keys"

logger = log(__name__)


@dataclass(slots=True)
class Progress:
    """Figures of the uplink."""

    acknowledged_total: int = 0
    quarantined_total: int = 0
    batches_in_flight: int = 0
    oldest_waiting_ms: int | None = None  # when the oldest fact that was read and not acknowledged happened


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch on its way: its facts themselves are in the journal, and in the publisher's message."""

    seqs: Sequence[int]
    oldest_ms: int
    receipt: Receipt


class Uplink:
    """Run `tasks`; they go on for ever."""

    def __init__(
        self,
        journal: Journal,
        policy: PolicyTable,
        address: str,
        credential: Credential,
        sealer: Sealer | None = None,
        known: Mapping[str, str] | None = None,
    ) -> None:
        self._journal, self._address, self._credential = journal, address, credential
        self._sealer = sealer or Sealer(NodeState())
        self.intake = PolicyIntake(journal, policy, credential, known or {})
        self.progress = Progress()
        self.publishing, self.following = Line(), Line()
        self._forget_through: int | None = None  # facts that Kafka has, and that are about to be deleted

    def _publisher(self) -> Publisher:
        return Publisher(self._address, self._credential, batches_in_flight=BATCHES_IN_FLIGHT)

    def tasks(self) -> Sequence[Coroutine[None, None, None]]:
        return self.publish(), self.follow_policy(), self.register_keys()

    def begin_anew(self) -> None:
        """Lets new connections take the place of those that are open: the node shows another certificate now."""
        self.publishing.begin_anew()
        self.following.begin_anew()

    async def publish(self) -> None:
        async with self._publisher() as publisher, asyncio.TaskGroup() as tasks:
            self.publishing = publisher.line
            in_flight: asyncio.Queue[_Sent] = asyncio.Queue()
            tasks.create_task(self._acknowledge(in_flight))
            sent = 0
            while True:
                batch = await self._next(sent)
                sent = batch[-1].seq
                items = [Outgoing(entry.value, entry.traceparent) for entry in batch]
                if len(items[0].value) > MAX_ITEM_BYTES:  # by itself in its batch, see `_next`
                    logger.error("a fact is too large for the ingress, it is quarantined", seq=sent)
                    receipt = _refused_here()
                else:
                    receipt = await publisher.publish(items)
                in_flight.put_nowait(_Sent([entry.seq for entry in batch], batch[0].at_ms, receipt))
                self.progress.batches_in_flight = in_flight.qsize()

    async def _next(self, sent: int) -> list[Entry]:
        """The next facts, as soon as there are any."""
        while True:
            self._journal.grown.clear()
            limits = sent, BATCH_ROWS, BATCH_BYTES, ITEM_OVERHEAD_BYTES
            if self._journal.depth.rows <= FEW_ROWS:  # they are read in less time than another thread takes to begin
                batch = self._journal.after(*limits)
            else:
                batch = await asyncio.to_thread(self._journal.after, *limits)
            if batch:
                large = next((n for n, entry in enumerate(batch) if len(entry.value) > MAX_ITEM_BYTES), len(batch))
                return batch[: max(1, large)]
            await self._journal.grown.wait()

    async def _acknowledge(self, in_flight: asyncio.Queue[_Sent]) -> None:
        try:
            await self._acknowledge_each(in_flight)
        finally:
            self._forget()

    async def _acknowledge_each(self, in_flight: asyncio.Queue[_Sent]) -> None:
        while True:
            if in_flight.empty():
                self.progress.oldest_waiting_ms = None
            batch = await in_flight.get()
            self.progress.oldest_waiting_ms = batch.oldest_ms
            refused = await batch.receipt
            for refusal in refused:
                logger.error("the ingress refused a fact, it is quarantined", code=refusal.code, reason=refusal.reason)
            self._forget_soon(batch.seqs[-1])
            if refused:
                self._forget(quarantined=tuple((batch.seqs[r.index], r.code, r.reason) for r in refused))
            self.progress.batches_in_flight = in_flight.qsize()
            self.progress.acknowledged_total += len(batch.seqs) - len(refused)
            self.progress.quarantined_total += len(refused)

    def _forget_soon(self, through: int) -> None:
        """Deleting is in no hurry: after a kill some facts are sent again, and the platform knows them by their ids. A
        transaction for each acknowledgement would cost as much as the one that kept the fact."""
        if self._forget_through is None:
            asyncio.get_running_loop().call_later(FORGET_SECONDS, self._forget)
        self._forget_through = through

    def _forget(self, quarantined: tuple[tuple[int, str, str], ...] = ()) -> None:
        if self._forget_through is not None:
            self._journal.write(Upkeep(forget_through=self._forget_through, quarantined=quarantined))
            self._forget_through = None

    async def follow_policy(self) -> None:
        async for news in watch_policy(self._address, self._credential, self.following, self.intake.begins):
            now = now_ms()
            await self.intake.take(news, now)
            if (days := self._sealer.learn(news.days, now)) is not None:
                self._journal.write(Upkeep(known=((DAY_KEYS, msgspec.json.encode(days).decode()),)))

    async def register_keys(self) -> None:
        """Hands data keys over as they are made, in a connection of their own: facts do not wait for keys."""
        pause = pauses()
        while True:
            sent = await self._sealer.waiting(MAX_ENVELOPES)
            try:
                refused = await hand_over(self._address, self._credential, sent)
            except (grpc.aio.AioRpcError, OSError, ValueError) as error:
                logger.debug("data keys are not handed over yet", envelopes=len(sent), error=repr(error))
                await asyncio.sleep(next(pause))
                continue
            pause = pauses()
            for key_id, reason in refused.items():
                logger.error("the ingress refused a data key: what it sealed stays unreadable", key_id=str(key_id), reason=reason)
            self._journal.write(Upkeep(changes=self._sealer.handed_over(sent)))


def stored_days(known: Mapping[str, str]) -> tuple[DayKeys, ...]:
    """What the journal kept of what sealing needs."""
    return msgspec.json.decode(known[DAY_KEYS], type=tuple[DayKeys, ...]) if DAY_KEYS in known else ()


def _refused_here() -> Receipt:
    receipt: Receipt = asyncio.get_running_loop().create_future()
    receipt.set_result((Refused(0, "TOO_LARGE", f"more than {MAX_ITEM_BYTES} bytes"),))
    return receipt
