"""The agent's core: a trigger in; an answer, facts and changes of state out. No I/O.

Invariant: a trigger is handled once. A retry (the same identity) gets the answer that the original got, and says nothing; what
is remembered for that is written in the transaction of the facts, so it holds over a restart, too. Where the answer needs
somebody else's (`questions.py`) nothing is said, changed or remembered until it is handled again with the reply.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.catalogue import CATALOGUE
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer, raw_body
from edge_agent.policy import PolicyTable
from edge_agent.questions import Question, Reply, Unanswered
from edge_agent.redact import redacted_body
from edge_agent.server import still_not_found
from edge_agent.shelf import Change
from edge_agent.trigger import Trigger
from edge_agent.turn import Node, Site, Turn, moment
from streams.errors import Invalid
from streams.generated import ConnectionsCounted, Fact, Meta, TriggerInvalid

REMEMBERED_MS: Final = 300_000  # MistServer gives up after 25 s (CONTRACT 2.2)
REMEMBERED_IN_MEMORY: Final = 200_000
OBSERVED: Final = "(observed)"  # stands where the name of a trigger does; no trigger is called so
KEPT_BODY_BYTES: Final = 900 << 10  # of an unreadable body: with its meta it must fit through the ingress


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class Outcome:
    """What became of a trigger. `is_written`: there is something to write before it is answered. `question`: nothing became of it
    yet; it is to be handled again with the reply."""

    answer: str
    facts: tuple[tuple[Fact, Meta], ...] = ()
    changes: tuple[Change, ...] = ()
    remarks: tuple[str, ...] = ()
    is_retry: bool = False
    is_invalid: bool = False
    is_written: bool = False
    question: Question | None = None


class Agent:
    """State of the node and the policy, and what is done with each trigger."""

    def __init__(
        self,
        node: Node,
        policy: PolicyTable,
        state: NodeState,
        country_of: Callable[[str], str | None],
        sealer: Sealer | None = None,
        site: Site = Site(),  # noqa: B008  # frozen
    ) -> None:
        self.site = site
        self.is_verified = False  # whether the media server's API is looked at
        self.node, self.policy, self.state, self._country_of = node, policy, state, country_of
        self.sealer = sealer or Sealer(state)
        self._answers: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    def remember(self, answers: Iterable[tuple[bytes, str, int]]) -> None:
        """Takes in (identity, answer, ms) of what was handled before a restart."""
        for identity, answer, at_ms in answers:
            self._answers[identity] = answer, at_ms

    def turn(self, trigger: Trigger, now_ms: int, replies: Mapping[Question, Reply] | None = None) -> Turn:
        known = (self.node, self.policy, self.state, now_ms, self._country_of, self.sealer, self.site)
        return Turn(trigger, *known, replies or {}, self.is_verified)

    def handle(self, trigger: Trigger, now_ms: int, replies: Mapping[Question, Reply] | None = None) -> Outcome:
        """What becomes of a trigger whose name is in the catalogue. `replies`: to what it asked before."""
        identity = trigger.identity
        if known := self._answers.get(identity):
            return Outcome(known[0], is_retry=True)
        turn = self.turn(trigger, now_ms, replies)
        entry, is_invalid, noted = CATALOGUE[trigger.name], False, self.state.changes.noted_total
        try:
            answer = entry.run(turn)
        except Unanswered as asked:
            if turn.facts or self.state.changes.noted_total != noted:
                raise RuntimeError(f"{trigger.name} asked after it had changed something") from None
            return Outcome("", question=asked.question)
        except Invalid as reason:
            answer, is_invalid = entry.when_invalid, True
            self._keep_raw(turn, str(reason))
            if entry.when_malformed:
                entry.when_malformed(turn)
        facts, changes = tuple(turn.facts), self.state.changes.take()
        is_written = bool(facts or changes or entry.is_remembered)
        outcome = Outcome(answer, facts, changes, tuple(turn.remarks), is_invalid=is_invalid, is_written=is_written)
        if is_written:
            self._answers[identity] = answer, now_ms
            if len(self._answers) > REMEMBERED_IN_MEMORY:
                self._answers.popitem(last=False)
        return outcome

    def _keep_raw(self, turn: Turn, reason: str) -> None:
        """The body as it came; of a flood only so many a minute, with how many were not kept."""
        unkept = self.state.counts.unreadable(turn.trigger.name, turn.now_ms)
        if unkept is not None:
            invalid = TriggerInvalid(
                node_id=self.node.node_id,
                trigger=turn.trigger.name,
                reason=reason,
                body=b"",
                sealed_body=_sealed_body(turn),
                unkept=unkept,
            )
            turn.say(invalid, self.node.subject)

    def counted(self, now_ms: int, *, at_once: bool = False) -> tuple[tuple[Fact, Meta], ...]:
        """What was counted and is due to be said; at the agent's end all of it (`at_once`)."""
        counts, node_id = self.state.counts, self.node.node_id
        facts: list[tuple[Fact, Meta]] = []
        if window := counts.window(now_ms, at_once=at_once):
            columns = zip(*(row for _, row in window.connections), strict=True)
            counted = ConnectionsCounted(
                node_id,
                moment(window.started_ms),
                (window.ended_ms - window.started_ms) // 1000,
                tuple(connector for connector, _ in window.connections),
                *columns,
            )
            span = (window.started_ms, window.ended_ms)
            facts.append((counted, self.node.meta("ConnectionsCounted", span, self.node.subject, window.ended_ms)))
        for fact, stream, times in still_not_found(counts, node_id, now_ms):
            about = stream or self.node.subject
            parts = (fact.connector, about.aggregate_id, now_ms, times)
            facts.append((fact, self.node.meta("StreamNotFound", parts, about, now_ms)))
        return tuple(facts)

    def observe(self, work: Callable[[Turn], None], now_ms: int, *, uuid: str, instance: str = "") -> Outcome:
        """What follows from something that no trigger said: `uuid` tells it apart from everything else that was ever seen."""
        turn = self.turn(Trigger(OBSERVED, b"", uuid, instance, 0, now_ms), now_ms)
        work(turn)
        return Outcome("", tuple(turn.facts), self.state.changes.take(), tuple(turn.remarks), is_written=True)

    def sweep(self, now_ms: int) -> tuple[Change, ...]:
        """Forgets what is past: once a minute or so. Gives what has to be written of it."""
        while self._answers:
            identity, (_, at_ms) = next(iter(self._answers.items()))
            if at_ms >= now_ms - REMEMBERED_MS:
                break
            del self._answers[identity]
        self.state.sweep(now_ms)
        return self.state.changes.take()


def _sealed_body(turn: Turn) -> bytes | None:
    """As it came, but for the secret part of our keys: sealed, because there may be anything in it."""
    body = redacted_body(turn.trigger.body[:KEPT_BODY_BYTES])
    return turn.sealed(raw_body(turn.node.tenant_id, turn.now_ms), body, TriggerInvalid, "sealed_body")
