"""What the tests of the edge agent have in common: a policy, an agent without a door, and recordings played to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edge_agent.agent import Agent, Outcome
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.questions import Question, Reply, no_reply
from edge_agent.trigger import Trigger
from edge_agent.turn import Node, Site
from infra.recordings import RecordedTrigger, read
from infra.recordings.replay import Translation, recorded_key
from streams.generated import Fact, Meta, Policy, StreamKey, StreamPolicy
from streams.ids import OPERATOR_TENANT, derive
from streams.privacy.envelope import DayKeys, Envelope, Grant, Opener, public_key
from streams.privacy.people import Person
from streams.privacy.sealing import key_id_of, unseal

TENANT = derive(OPERATOR_TENANT, "tenant of the edge tests")
STREAM = derive(TENANT, "stream")
KEY = "sk_abcd2345_0123456789abcdefghijkl"
NOON_MS = 1_795_262_400_000
TODAY = datetime.fromtimestamp(NOON_MS / 1000, UTC).date()
SEALED = ("address", "subject", "sealed_body")
INTAKE = bytes(range(32))
DAY_KEYS = DayKeys(TODAY, public_key(INTAKE), bytes(32))
SESSION = "c036d0224f090448fd796cab996595830a69551f0832bdf338b29063acf3323f"


def stream_key(key: str, valid_until: datetime | None = None) -> StreamKey:
    return StreamKey(prefix=key.split("_")[1], hash=sha256(key.encode()).digest(), valid_until=valid_until)


def stream_policy(*keys: StreamKey, stream_id: UUID = STREAM, name: str = "lobby", deleted: bool = False) -> StreamPolicy:
    return StreamPolicy(TENANT, stream_id, name, f"pb{name}", keys or (stream_key(KEY),), deleted)


@dataclass
class AgentUnderTest:
    """An agent without I/O. Every trigger is told apart by a number; `facts` is what it ever said."""

    policies: Sequence[Policy] = field(default_factory=lambda: [stream_policy()])
    now_ms: int = NOON_MS
    facts: list[tuple[Fact, Meta]] = field(default_factory=list)
    rows: dict[tuple[str, str], bytes] = field(default_factory=dict)  # state as the journal would have it
    site: Site = field(default_factory=Site)
    reply: Callable[[Question], Reply] = no_reply  # to what a trigger asks
    asked: list[Question] = field(default_factory=list)
    country: str | None = None  # of everybody

    def __post_init__(self) -> None:
        self.policy = PolicyTable(self.policies, is_known=True)
        self.agent = self._agent(NodeState())
        self._number = 0

    def _agent(self, state: NodeState) -> Agent:
        sealer = Sealer(state, [DAY_KEYS])
        node = Node.called("edge-1", OPERATOR_TENANT)
        return Agent(node, self.policy, state, lambda _: self.country, sealer, self.site)

    def grants(self) -> dict[UUID, Grant]:
        """Data keys in the envelopes that the journal has, by id: what the platform would get."""
        opener = Opener()
        found = [msgspec.json.decode(value, type=Envelope) for (shelf, _), value in self.rows.items() if shelf == "envelopes"]
        return {envelope.key_id: opener.open(envelope, INTAKE) for envelope in found}

    def opened(self, fact: Fact, field: str) -> tuple[bytes, Person]:
        """A sealed field of a fact that was said, and whose key opened it."""
        sealed = getattr(fact, field)
        meta = next(meta for said, meta in self.facts if said is fact)
        grant = self.grants()[key_id_of(sealed)]
        plain = unseal(AESGCM(grant.key), sealed, tenant_id=meta.tenant_id, event_id=meta.event_id, field=field)
        return plain, grant.person

    def told(self) -> list[tuple[Fact, Meta]]:
        """All facts, with what is sealed in them as it was before."""
        told = []
        for fact, meta in self.facts:
            sealed = [f.name for f in fields(fact) if f.name in SEALED and getattr(fact, f.name) is not None]
            opened: Any = {name: self.opened(fact, name)[0] for name in sealed}
            told.append((replace(fact, **opened), meta))
        return told

    def restart(self) -> None:
        """As after a kill: only what the journal has is there."""
        state = NodeState()
        state.load((shelf, key, value) for (shelf, key), value in self.rows.items())
        self.agent = self._agent(state)

    def send(self, name: str, body: str | bytes, *, pid: int = 100, uuid: str | None = None, after_ms: int = 10) -> str:
        """Gives the answer."""
        return self.outcome(name, body, pid=pid, uuid=uuid, after_ms=after_ms).answer

    def outcome(self, name: str, body: str | bytes, *, pid: int = 100, uuid: str | None = None, after_ms: int = 10) -> Outcome:
        self.now_ms += after_ms
        self._number += 1
        raw = body.encode() if isinstance(body, str) else body
        trigger = Trigger(name, raw, uuid or f"uuid-{self._number}", "InstanceA", pid, self.now_ms)
        return self.handle(trigger)

    def handle(self, trigger: Trigger) -> Outcome:
        replies: dict[Question, Reply] = {}
        outcome = self.agent.handle(trigger, self.now_ms)
        while outcome.question is not None:
            self.asked.append(outcome.question)
            replies[outcome.question] = self.reply(outcome.question)
            outcome = self.agent.handle(trigger, self.now_ms, replies)
        return self.take(outcome)

    def take(self, outcome: Outcome) -> Outcome:
        """Does with what came of something what the journal would."""
        self.facts += outcome.facts
        for change in outcome.changes:
            if change.value is None:
                self.rows.pop((change.shelf, change.key), None)
            else:
                self.rows[change.shelf, change.key] = change.value
        return outcome

    def play(self, recording: str, key: str = KEY) -> list[tuple[RecordedTrigger, str]]:
        """Plays a whole recording; gives each trigger with its answer."""
        recorded = read(recording)
        names, answers, began = Translation(recorded_key(recorded), key), [], self.now_ms
        for line in recorded:
            self.now_ms = began + round(1000 * line.at_seconds)
            headers = line.headers
            trigger = Trigger(
                line.name,
                names.body(line.body).encode(),
                headers["X-Trigger-UUID"],
                headers.get("X-Instance", ""),
                int(headers["X-PID"]),
                self.now_ms,
            )
            answer = self.handle(trigger).answer
            names.learn(line, answer)
            answers.append((line, answer))
        return answers

    def said(self, *kinds: type) -> list[Fact]:
        """Facts of these kinds (all, where none is named), in the order in which they were said."""
        return [fact for fact, _ in self.facts if not kinds or isinstance(fact, kinds)]

    def names(self) -> list[str]:
        return [type(fact).__name__ for fact in self.said()]
