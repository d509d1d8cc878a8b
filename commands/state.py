"""All that a partition's writer knows: its tenants and the answers it gave. What it writes is what it folds.

Invariant: the state after deciding equals the state after folding what was written (both go through
`evolve` and `remember`). It is never patched after an error: it is dropped, and folded again from the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from commands.aggregate import Boundary, beginning
from commands.answers import CLOCK_AHEAD, EXPIRED, KEY_REUSED, UNDECIDED, Answer, Answers
from commands.boundary import decide, evolve, is_about_tenant
from streams.errors import Invalid, Rejected
from streams.fingerprint import fingerprint
from streams.generated import Command, CommandHandled, CommandStatus, Decision, Event, Meta
from streams.ids import derive, event_id, outcome_id, wish_id
from streams.topics import partition_of

CLOCK_TOLERANCE: Final = timedelta(minutes=5)


class BrokenLog(Exception):
    """The decisions topic holds what no writer may write. Nothing is decided on top of it: stop, and tell people."""


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a command: its events, then its outcome, in the order in which they are written."""

    events: Sequence[tuple[Decision, Meta]]
    outcome: CommandHandled
    meta: Meta
    boundary: Boundary | None = None  # the tenant after the events; None: nothing changed
    is_repeated: bool = False


class PartitionState:
    """Tenants and answers of one partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.boundaries: dict[UUID, Boundary] = {}
        self.answers = Answers()

    def fold(self, event: Event, meta: Meta) -> None:
        """Takes one record of the decisions topic. Raises BrokenLog."""
        if isinstance(event, CommandHandled):
            self.answers.remember(event, meta)
            return
        if not isinstance(event, Decision):
            raise BrokenLog(f"{type(event).__name__} {meta.event_id} is no decision")
        self.fold_decision(event, meta.tenant_id, meta.aggregate_id, meta.version)

    def fold_decision(self, event: Decision, tenant_id: UUID, aggregate_id: UUID, version: int) -> None:
        """Takes a decision, of whose Meta nothing else counts. Raises BrokenLog."""
        boundary = self.boundaries.get(tenant_id) or beginning(tenant_id)
        expected = boundary.version(aggregate_id) + 1
        if version != expected:
            raise BrokenLog(f"{type(event).__name__} of {aggregate_id} has version {version}, not {expected}")
        self.boundaries[tenant_id] = evolve(boundary, aggregate_id, event)

    def decide(self, event: Event, meta: Meta, now: datetime) -> Handled:
        """What follows from a record of the command topic. Changes nothing: `take` does, when the result can be written.

        Raises Invalid: this is no command, or not one for this partition.
        """
        command = self._addressed(event, meta)
        wish = fingerprint(command, meta.aggregate_id)
        try:
            answer = self._answer(meta, now)
            if answer is None:
                return self._decide(command, meta, wish)
            if answer.outcome.fingerprint == wish:
                return _repeat(answer, meta)
            message = "This idempotency key was used for another request: take a new one, or repeat the first request unchanged."
            raise Rejected(KEY_REUSED, message, "clientMutationId")
        except Rejected as rejected:
            return reject(command, meta, rejected, wish)

    def _answer(self, meta: Meta, now: datetime) -> Answer | None:
        """The answer that was given already; None: the command is to be decided. Raises Rejected: it cannot be."""
        if meta.occurred_at > now + CLOCK_TOLERANCE:
            raise Rejected(
                CLOCK_AHEAD, "This was issued in the future: set the clock of the machine that sent it, then send it again."
            )
        answer = self.answers.get(meta.event_id)
        if answer is None and meta.occurred_at < self.answers.horizon:
            raise Rejected(
                EXPIRED, "This was issued more than a day before others that were decided already: send it again as new."
            )
        return answer

    def _decide(self, command: Command, meta: Meta, wish: bytes) -> Handled:
        boundary = self.boundaries.get(meta.tenant_id) or beginning(meta.tenant_id)
        events: list[tuple[Decision, Meta]] = []
        wished = wish_id(meta.event_id, meta.occurred_at)
        for decision in decide(boundary, meta.aggregate_id, command):
            boundary = evolve(boundary, meta.aggregate_id, decision)
            events.append((decision, _decision_meta(meta, event_id(wished, len(events)), boundary.version(meta.aggregate_id))))
        outcome_meta = _outcome_meta(meta, outcome_id(wished))
        return Handled(events, _outcome(command, meta, wish, len(events)), outcome_meta, boundary if events else None)

    def take(self, handled: Handled) -> None:
        """Goes on from what was decided: the same as folding it."""
        if handled.boundary is not None:
            self.boundaries[handled.meta.tenant_id] = handled.boundary
        self.answers.remember(handled.outcome, handled.meta)

    def _addressed(self, event: Event, meta: Meta) -> Command:
        if not isinstance(event, Command):
            raise Invalid(f"{type(event).__name__} is no command")
        if meta.tenant_id not in self.boundaries and partition_of(meta.tenant_id) != self.partition:
            raise Invalid(f"tenant {meta.tenant_id} belongs to partition {partition_of(meta.tenant_id)}")
        if is_about_tenant(event) != (meta.aggregate_id == meta.tenant_id):
            raise Invalid(f"{type(event).__name__} cannot be about aggregate {meta.aggregate_id} of tenant {meta.tenant_id}")
        return event


def _repeat(answer: Answer, meta: Meta) -> Handled:
    """The answer once more: as it was, but at the time of this sending, for which it is remembered from now on."""
    given_at, sent_at = answer.meta.occurred_at, meta.occurred_at
    identity = answer.meta.event_id if given_at == sent_at else derive(answer.meta.event_id, "again", sent_at.isoformat())
    again = replace(answer.meta, event_id=identity, occurred_at=sent_at)
    return Handled((), answer.outcome, again, is_repeated=True)


def reject(command: Command, meta: Meta, rejected: Rejected, wish: bytes) -> Handled:
    """A refusal, as the outcome that the client sees."""
    # A command may be refused undecided after it was answered: two outcomes, so two ids.
    identity = outcome_id(wish_id(meta.event_id, meta.occurred_at))
    if rejected.code in UNDECIDED or rejected.code == KEY_REUSED:
        identity = derive(identity, rejected.code, wish.hex(), meta.occurred_at.isoformat())
    return Handled((), _outcome(command, meta, wish, 0, rejected), _outcome_meta(meta, identity))


def _outcome(command: Command, meta: Meta, wish: bytes, events: int, rejected: Rejected | None = None) -> CommandHandled:
    return CommandHandled(
        command_id=meta.event_id,
        command_type=type(command).__name__,
        fingerprint=wish,
        status=CommandStatus.ACCEPTED if rejected is None else CommandStatus.REJECTED,
        events=events,
        code=rejected.code if rejected else None,
        field=rejected.field if rejected else None,
        message=rejected.message if rejected else None,
    )


def _decision_meta(command: Meta, identity: UUID, version: int) -> Meta:
    return Meta(
        event_id=identity,
        tenant_id=command.tenant_id,
        aggregate_id=command.aggregate_id,
        version=version,
        causation_id=command.event_id,
        correlation_id=command.correlation_id,
        occurred_at=command.occurred_at,
        actor=command.actor,
    )


def _outcome_meta(command: Meta, identity: UUID) -> Meta:
    return Meta(
        event_id=identity,
        tenant_id=command.tenant_id,
        aggregate_id=command.aggregate_id,
        version=0,
        causation_id=command.event_id,
        correlation_id=command.correlation_id,
        occurred_at=command.occurred_at,
        actor=command.actor,
    )
