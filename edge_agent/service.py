"""The agent as it runs: the door, the core, the journal and the uplink put together.

Invariant: a trigger that said or changed something is answered after its rows are durable. While the disk refuses them,
triggers whose answer the media server acts on are answered all the same (a publisher is worth more than a record of it), the
others get 503; both is counted, logged and told by /readyz. A trigger that waits for somebody's reply holds up no other; its
retries wait with it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY, generate_latest

from edge_agent.agent import REMEMBERED_MS, Agent, Outcome
from edge_agent.catalogue import CATALOGUE
from edge_agent.enrolment import Renewal
from edge_agent.http import Reply as Respond
from edge_agent.http import Request
from edge_agent.inquiries import Inquiries
from edge_agent.inquiries import outcome as outcome_of
from edge_agent.journal import Journal
from edge_agent.journal_file import Answer, TriggerRows, Upkeep
from edge_agent.journal_keeper import JournalKeeper
from edge_agent.metrics import Metrics, now_ms
from edge_agent.mist.link import Link
from edge_agent.questions import Question, Reply, no_reply
from edge_agent.trigger import Trigger, from_request
from edge_agent.turn import Turn
from edge_agent.uplink import Uplink
from streams.codec import encode
from streams.ids import new_id
from streams.telemetry import continued, log, traceparent

TRIGGER_PATH: Final = "/trigger/"
SWEEP_SECONDS: Final = 5
QUESTIONS: Final = 2  # that one trigger may lead to: together they take less than the 5 s that the media server waits

logger = log(__name__)


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class _Waiting:
    """A request that is to be answered, and when it came."""

    reply: Respond
    began: float


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class _Decided:
    """What became of a trigger, and the trace that it became so in."""

    outcome: Outcome
    trace: str | None
    at_ms: int


class Service:
    """The application behind the door."""

    def __init__(
        self, agent: Agent, journal: Journal, uplink: Uplink, *, is_traced: bool, inquiries: Inquiries | None = None
    ) -> None:
        self._agent, self._journal, self._uplink, self._is_traced = agent, journal, uplink, is_traced
        self._inquiries = inquiries
        self.renewal: Renewal | None = None  # of the certificate, once there is an agent around this
        self.metrics = Metrics(self)
        self.keeper = JournalKeeper(agent, journal, self.metrics)
        self._pending: dict[bytes, list[Callable[[bool], None]]] = {}  # retries of triggers that are not durable yet
        self._asking: dict[bytes, list[_Waiting]] = {}  # triggers that wait for a reply, with their retries
        self._inquiring: set[asyncio.Task[None]] = set()
        self.mist: Link | None = None  # the media server's API, where there is one

    def answer(self, request: Request, reply: Respond) -> None:
        if request.path.startswith(TRIGGER_PATH):
            if request.method != b"POST":
                reply(405, b"triggers are POSTed")
            else:
                self._trigger(request, reply)
            return
        match request.path:
            case "/metrics":
                reply(200, generate_latest(REGISTRY) + generate_latest(self.metrics.registry))
            case "/healthz":
                reply(200, b"ok\n")
            case "/readyz":
                is_ready, detail = self.readiness()
                reply(200 if is_ready else 503, json.dumps(detail).encode() + b"\n")
            case _:
                reply(404, b"try POST /trigger/<NAME>, /metrics, /healthz or /readyz\n")

    def refused(self, status: int) -> None:
        self.metrics.refused[str(status)] += 1

    def _trigger(self, request: Request, reply: Respond) -> None:
        name = request.path[len(TRIGGER_PATH) :]
        if name not in CATALOGUE:
            self.metrics.unknown += 1
            reply(404, b"MistServer has no trigger of this name")
            return
        began, now = time.perf_counter(), now_ms()
        trigger = from_request(name, request.headers, request.body, now, lambda: str(new_id()))
        try:
            self._handle(trigger, now, _Waiting(reply, began))
        except Exception:  # a bug must not take the media server's door down; it uses its default on a 500
            logger.exception("a trigger could not be handled", trigger=name)
            self.metrics.count_trigger(name, "error")
            reply(500, b"")

    def _handle(self, trigger: Trigger, now: int, waiting: _Waiting) -> None:
        if (asked_before := self._asking.get(trigger.identity)) is not None:
            self.metrics.count_trigger(trigger.name, "retry")
            asked_before.append(waiting)
            return
        decided = self._decide(trigger, now, {})
        if decided.outcome.question is None:
            self._settle(trigger, decided, [waiting])
            return
        self._asking[trigger.identity] = everybody = [waiting]
        task = asyncio.create_task(self._inquire(trigger, decided, everybody), name=f"inquiry of {trigger.name}")
        self._inquiring.add(task)
        task.add_done_callback(self._inquiring.discard)

    async def _inquire(self, trigger: Trigger, decided: _Decided, everybody: list[_Waiting]) -> None:
        """Asks until the trigger can be decided. What it asks may change while it waits, but not for ever."""
        replies: dict[Question, Reply] = {}
        try:
            while (question := decided.outcome.question) is not None:
                replies[question] = await self._reply(question, is_last=len(replies) >= QUESTIONS)
                decided = self._decide(trigger, now_ms(), replies)
            self._settle(trigger, decided, everybody)
        except Exception:
            logger.exception("a trigger could not be decided", trigger=trigger.name)
            self.metrics.count_trigger(trigger.name, "error")
            for waiting in everybody:
                waiting.reply(500, b"")
        finally:
            del self._asking[trigger.identity]

    async def _reply(self, question: Question, *, is_last: bool) -> Reply:
        if self._inquiries is None or is_last:
            return no_reply(question)
        reply = await self._inquiries.reply(question)
        self.metrics.inquiries.labels(*outcome_of(reply)).inc()
        return reply

    def _decide(self, trigger: Trigger, now: int, replies: Mapping[Question, Reply]) -> _Decided:
        if not (trigger.traceparent or self._is_traced):
            return _Decided(self._agent.handle(trigger, now, replies), None, now)
        with continued(f"trigger {trigger.name}", trigger.traceparent):
            return _Decided(self._agent.handle(trigger, now, replies), traceparent(), now)

    def _settle(self, trigger: Trigger, decided: _Decided, everybody: Sequence[_Waiting]) -> None:
        """Makes durable what became of a trigger, then answers everybody who waits for it."""
        outcome, identity = decided.outcome, trigger.identity
        self._remark(trigger, outcome)
        is_answered, body = CATALOGUE[trigger.name].is_answered, outcome.answer.encode()

        def done(is_durable: bool) -> None:
            for waiting in everybody:
                self._answer(waiting, body if is_durable or is_answered else None)

        if outcome.is_retry and (pending := self._pending.get(identity)) is not None:
            pending.append(done)
        elif not outcome.is_written:
            done(True)
        else:
            pending = self._pending[identity] = [done]

            def settled(is_durable: bool) -> None:
                del self._pending[identity]
                for each in pending:
                    each(is_durable)

            facts = tuple((encode(fact, meta), decided.trace) for fact, meta in outcome.facts)
            answer = Answer(identity, outcome.answer, decided.at_ms)
            self._journal.write(TriggerRows(facts, outcome.changes, answer, settled))

    def _answer(self, waiting: _Waiting, body: bytes | None) -> None:
        if body is None:
            self.metrics.unavailable += 1
            waiting.reply(503, b"the journal cannot be written")
        else:
            waiting.reply(200, body)
        self.metrics.count_answer(time.perf_counter() - waiting.began)

    def _remark(self, trigger: Trigger, outcome: Outcome) -> None:
        result = "retry" if outcome.is_retry else "invalid" if outcome.is_invalid else "handled"
        self.metrics.count_trigger(trigger.name, result)
        for fact, _ in outcome.facts:
            self.metrics.count_fact(type(fact).__name__)
        for remark in outcome.remarks:
            logger.warning(remark, trigger=trigger.name)
        if self.mist and trigger.name == "SYSTEM_START" and not outcome.is_retry:
            self.mist.keeper.wake()  # what was not saved before a crash is gone

    def observe(self, work: Callable[[Turn], None]) -> None:
        """Lets something that no trigger told take a turn, and writes what comes of it."""
        now = now_ms()
        outcome = self._agent.observe(work, now, uuid=str(new_id()))
        for fact, _ in outcome.facts:
            self.metrics.count_fact(type(fact).__name__)
        for remark in outcome.remarks:
            logger.warning(remark)
        if outcome.facts or outcome.changes:
            facts = tuple((encode(fact, meta), None) for fact, meta in outcome.facts)
            self._journal.write(TriggerRows(facts, outcome.changes, None, at_ms=now))

    def close(self) -> None:
        """Triggers that wait for a reply are not answered any more: the media server asks again, or uses its default."""
        for task in tuple(self._inquiring):
            task.cancel()

    def readiness(self) -> tuple[bool, dict[str, object]]:
        """Whether triggers are answered as they should be, and in words what is not so."""
        problems = []
        if not self._agent.policy.is_known:
            problems.append(f"no policy was ever received, so every publisher is refused: {self._uplink.following.problem}")
        if self._journal.problem:
            problems.append(f"the journal cannot be written: {self._journal.problem}")
        return not problems, {
            "ready": not problems,
            "problems": problems,
            "warnings": self.keeper.warnings(self._uplink),
            "streams_known": len(self._agent.policy),
            "uplink": self._uplink.publishing.problem or "connected",
            "facts_waiting": self._journal.depth.rows,
            "journal_bytes": self._journal.depth.size_bytes,
            "journal_budget_bytes": self._journal.budget_bytes,
            "facts_dropped": self._journal.dropped_total,
            "media_server": (self.mist.problems() or ["as it shall be"]) if self.mist else ["only heard by its triggers"],
            "certificate": self.renewal.told(now_ms()) if self.renewal else "none",
        }

    def status(self) -> str:
        """One line for those who look at the service."""
        _, told = self.readiness()
        return f"{told['uplink']}; {told['facts_waiting']} facts wait; certificate {told['certificate']}".replace("\n", " ")

    async def keep_tidy(self) -> None:
        while True:
            for _ in range(SWEEP_SECONDS):
                await asyncio.sleep(1)
                self._journal.write(Upkeep(answers_before_ms=now_ms() - REMEMBERED_MS))
            now = now_ms()
            self.keeper.say_counted(now)
            self._journal.write(Upkeep(changes=self._agent.sweep(now)))
            await self.keeper.tidy(now)

    def gauges(self) -> Iterator[tuple[str, str, float]]:
        journal, progress, state, now = self._journal, self._uplink.progress, self._agent.state, now_ms()
        lag = 0.0 if progress.oldest_waiting_ms is None else max(0.0, (now - progress.oldest_waiting_ms) / 1000)
        yield "fw_edge_journal_rows", "Facts that wait for the platform.", journal.depth.rows
        yield "fw_edge_journal_bytes", "Bytes of the facts that wait for the platform.", journal.depth.size_bytes
        yield "fw_edge_journal_budget_bytes", "Bytes beyond which the least worth keeping is given up.", journal.budget_bytes
        yield "fw_edge_journal_is_giving_up", "1 while the journal is at its budget.", float(journal.is_giving_up)
        yield "fw_edge_journal_is_failing", "1 while the journal cannot be written.", float(journal.problem is not None)
        yield "fw_edge_uplink_lag_seconds", "Age of the oldest fact that is sent and not acknowledged.", lag
        yield "fw_edge_uplink_is_up", "1 while the ingress is connected.", float(self._uplink.publishing.is_up)
        yield "fw_edge_uplink_batches", "Batches on their way.", progress.batches_in_flight
        yield "fw_edge_policy_streams", "Streams that the node knows.", len(self._agent.policy)
        yield "fw_edge_policy_is_known", "1 once a whole policy was received.", float(self._agent.policy.is_known)
        if (heard_ms := self._agent.policy.heard_ms) is not None:
            yield "fw_edge_policy_age_seconds", "Since the policy was last known to be current.", (now - heard_ms) / 1000
        yield "fw_edge_envelopes", "Data keys that the platform does not have yet.", len(state.envelopes)
        if self.renewal and self.renewal.identity:
            yield "fw_edge_certificate_seconds_left", "Until the certificate ends.", self.renewal.seconds_left(now)
        yield "fw_edge_open_viewings", "Viewer sessions.", sum(v.concluded_ms is None for v in state.viewings)
        yield "fw_edge_open_ingests", "Publishers.", sum(i.concluded_ms is None for i in state.ingests)
        yield "fw_edge_open_pushes", "Pushes and recordings.", sum(p.concluded_ms is None for p in state.pushes)
        if self.mist:
            yield from self.mist.gauges()

    def totals(self) -> Iterator[tuple[str, str, float]]:
        yield "fw_edge_journal_transactions", "Transactions of the journal.", self._journal.transactions_total
        yield "fw_edge_journal_lost_facts", "Facts lost while the disk refused them.", self._journal.lost_total
        yield "fw_edge_journal_dropped_facts", "Facts given up for the byte budget.", self._journal.dropped_total
        yield "fw_edge_acknowledged_facts", "Facts that Kafka has.", self._uplink.progress.acknowledged_total
        yield "fw_edge_quarantined_facts", "Facts that the ingress refused.", self._uplink.progress.quarantined_total
        yield "fw_edge_unsealed_values", "Personal values dropped for want of a key.", self._agent.sealer.dropped_total
        if self.renewal:
            yield (
                "fw_edge_certificate_renewals",
                "Certificates that followed an earlier one.",
                self.renewal.renewed_total,
            )
        yield (
            "fw_edge_policy_refused",
            "Records of the policy without the platform's signature.",
            self._uplink.intake.refused_total,
        )
        yield "fw_edge_uplink_lost", "Connections to the ingress that were lost.", self._uplink.publishing.lost_total
        if self.mist:
            yield from self.mist.totals()
