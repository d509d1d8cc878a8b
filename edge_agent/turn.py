"""One trigger's turn: what is known when it is handled, and the facts that come of it.

Invariant: the id of a fact is derived from the node, the trigger's identity, the kind of the fact and, where one trigger says
several of a kind, what each is about. Handling the same trigger again says the same facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from edge_agent.node_state import NodeState, Subject
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.questions import AskLease, AskTenant, Question, Reply, Unanswered
from edge_agent.trigger import Trigger
from streams.generated import Fact, Meta, StreamPolicy
from streams.ids import derivation, derive, derive_named, node_uuid
from streams.ingress.lease import LeaseAnswer
from streams.playback.rules import WebhookSaid
from streams.privacy.people import Person


@dataclass(frozen=True, slots=True)
class Node:
    """This node, as its facts name it."""

    node_id: str
    tenant_id: UUID  # of what it says about itself
    uuid: UUID
    actor: str

    @classmethod
    def called(cls, node_id: str, tenant_id: UUID) -> Node:
        return cls(node_id, tenant_id, node_uuid(node_id), f"node:{node_id}")

    @property
    def subject(self) -> Subject:
        return Subject(self.tenant_id, self.uuid)

    def meta(self, kind: str, parts: Sequence[object], subject: Subject, at_ms: int) -> Meta:
        """Of a fact that no trigger led to. `parts` tell it apart from others of its kind: the same parts, the same fact."""
        event_id = derive(self.uuid, kind, *parts)
        return Meta(
            event_id=event_id,
            tenant_id=subject.tenant_id,
            aggregate_id=subject.aggregate_id,
            version=0,
            causation_id=event_id,
            correlation_id=event_id,
            occurred_at=moment(at_ms),
            actor=self.actor,
        )


@dataclass(frozen=True, slots=True)
class Site:
    """What the operator says of the node's surroundings."""

    asks_lease: bool = False  # whether there is a platform to ask before a publisher is admitted
    balancer_url: str | None = None  # http://host:port of the balancer that knows which node has a stream
    peer_networks: tuple[str, ...] = ()  # of other nodes: they pull streams over DTSC, and are no viewers


@dataclass(slots=True)
class Turn:
    trigger: Trigger
    node: Node
    policy: PolicyTable
    state: NodeState
    now_ms: int  # the agent's clock: what expires, expires by it
    country_of: Callable[[str], str | None]
    sealer: Sealer
    site: Site = Site()
    replies: Mapping[Question, Reply] = field(default_factory=dict)
    is_verified: bool = False  # what is open is compared with the media server's API: nothing is concluded from silence alone
    facts: list[tuple[Fact, Meta]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # sentences for the log, without secrets
    _derived: dict[tuple[str, object], UUID] = field(init=False, default_factory=dict)  # of this trigger
    _derivation: bytes = field(init=False, default=b"")

    def about(self, key: str, *, pid: int = 0, at_ms: int | None = None) -> Turn:
        """The same turn, as if a trigger of its own told this: what follows has ids of its own, and happened then."""
        at_ms = self.trigger.unix_ms if at_ms is None else at_ms
        return replace(self, trigger=replace(self.trigger, uuid=f"{self.trigger.uuid} {key}", pid=pid, unix_ms=at_ms))

    @property
    def pid(self) -> str:
        return str(self.trigger.pid)

    @staticmethod
    def moment(unix_ms: int) -> datetime:
        return moment(unix_ms)

    def derived(self, kind: str, part: object = "") -> UUID:
        """The same for the same trigger, kind and part; asked for again and again within a turn."""
        found = self._derived.get((kind, part))
        if found is None:
            if not self._derivation:
                self._derivation = derivation(self.trigger.instance, self.trigger.uuid)
            found = derive_named(self.node.uuid, self._derivation + derivation(kind, part))
            self._derived[kind, part] = found
        return found

    def sealed(self, person: Person, value: str | bytes, fact: type[Fact], field: str) -> bytes | None:
        """A value for a field of the fact of this kind that is about to be said; None where there is none, or no key."""
        if not value:
            return None
        raw = value.encode("utf-8", "replace") if isinstance(value, str) else value
        return self.sealer.seal(person, raw, event_id=self.derived(fact.__name__), field=field, now_ms=self.now_ms)

    @property
    def now(self) -> datetime:
        return self.moment(self.now_ms)

    @property
    def is_policy_stale(self) -> bool:
        return self.policy.is_stale(self.now_ms)

    def tenant_version(self, tenant_id: UUID) -> int:
        """Of the tenant's policy that decides; 0: none is known."""
        tenant = self.policy.tenant(tenant_id)
        return tenant.version if tenant else 0

    def lease(self, question: AskLease) -> LeaseAnswer:
        """The platform's reply. Unanswered: there is none yet."""
        reply = self.replies.get(question)
        if isinstance(reply, LeaseAnswer):
            return reply
        raise Unanswered(question)

    def webhook(self, question: AskTenant) -> WebhookSaid:
        """The reply of the tenant's server. Unanswered: there is none yet."""
        reply = self.replies.get(question)
        if isinstance(reply, WebhookSaid):
            return reply
        raise Unanswered(question)

    def say(self, fact: Fact, subject: Subject, *, correlation: UUID | None = None, part: object = "") -> UUID:
        """Adds a fact; gives its event id. `correlation`: the first event of the session that it belongs to."""
        event_id = self.derived(type(fact).__name__, part)
        meta = Meta(
            event_id=event_id,
            tenant_id=subject.tenant_id,
            aggregate_id=subject.aggregate_id,
            version=0,
            causation_id=correlation or event_id,
            correlation_id=correlation or event_id,
            occurred_at=self.trigger.at,
            actor=self.node.actor,
        )
        self.facts.append((fact, meta))
        return event_id


def moment(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


def subject_of(policy: StreamPolicy) -> Subject:
    return Subject(policy.tenant_id, policy.stream_id)
