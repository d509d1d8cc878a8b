"""What the decisions log must hold, said once more and independently: a reader of the command topic with plain dictionaries.

Invariant: it knows the log and nothing of any worker. Given the records of the command topic in order, all that stands on the
decisions topic follows, but for what depends on a worker's clock, and there the model says within what bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from streams import codec
from streams.generated import Command, CommandHandled, Decision, Event, Meta
from streams.topics import partition_of
from tests.command_worker import Model
from tests.sim.partition_log import Entry

DAY = timedelta(days=1)
AHEAD = timedelta(minutes=5)


class Wrong(AssertionError):
    """The log does not hold what it must."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A record of the command topic, and when it got there."""

    offset: int
    value: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Clocks:
    """How far from the truth the clocks of workers ever were."""

    slowest: timedelta = timedelta()
    fastest: timedelta = timedelta()


def check(partition: int, sent: Sequence[Sent], decisions: Sequence[Entry], letters: Sequence[Entry], clocks: Clocks) -> None:
    """Compares the logs of one partition with the model. Raises Wrong."""
    _Check(partition, clocks).run(sent, decisions, letters)


class _Check:
    def __init__(self, partition: int, clocks: Clocks) -> None:
        self._partition, self._clocks = partition, clocks
        self._model = Model()
        self._first: dict[UUID, tuple[Command, Meta]] = {}
        self._answers: dict[UUID, CommandHandled] = {}
        self._last_issued: dict[UUID, datetime] = {}
        self._newest = datetime(1970, 1, 3, tzinfo=UTC)

    def run(self, sent: Sequence[Sent], decisions: Sequence[Entry], letters: Sequence[Entry]) -> None:
        written = iter([codec.decode(entry.value or b"") for entry in decisions])
        buried: list[int] = []
        for record in sent:
            read = self._read(record)
            if read is None:
                buried.append(record.offset)
            else:
                self._handle(record, *read, written)
        if (left := next(written, None)) is not None:
            raise Wrong(f"partition {self._partition}: {_say(*left)} stands on the log although nobody asked for it (any more)")
        found = [int(dict(entry.headers)["offset"]) for entry in letters]
        if found != buried:
            raise Wrong(f"partition {self._partition}: the dead letters are of {found}, not of {buried}")

    def _read(self, record: Sent) -> tuple[Command, Meta] | None:
        try:
            command, meta = codec.decode(record.value)
        except Exception:  # noqa: BLE001  # whatever it is, it is no command
            return None
        is_here = partition_of(meta.tenant_id) == self._partition
        return (command, meta) if isinstance(command, Command) and is_here else None

    def _handle(self, record: Sent, command: Command, meta: Meta, written: Iterator[tuple[Event, Meta]]) -> None:
        """What must stand there because of one command, in front of all that comes later."""
        before = len(self._model.lines)
        got: list[tuple[Event, Meta]] = []
        while (line := next(written, None)) is not None:
            got.append(line)
            if isinstance(line[0], CommandHandled):
                break
        where = f"partition {self._partition}, command at {record.offset} ({type(command).__name__})"
        if not got or not isinstance(got[-1][0], CommandHandled):
            raise Wrong(f"{where} has no answer")
        outcome = got[-1][0]
        for _, of in got:
            if (of.causation_id, of.tenant_id) != (meta.event_id, meta.tenant_id):
                raise Wrong(f"{where}: its place on the log is taken by {[_say(*line) for line in got]}")
        if outcome.code in self._undecided(record, meta):
            events: list[tuple[str, UUID, object]] = []
        else:
            self._decide(where, command, meta, outcome)
            events = self._model.lines[before:]
        found = [(type(event).__name__, of.aggregate_id, of.version) for event, of in got[:-1]]
        if found != events:
            raise Wrong(f"{where}: the log says {found}, and {events} would be right")

    def _undecided(self, record: Sent, meta: Meta) -> set[str]:
        """Codes with which a worker may refuse to decide at all."""
        codes: set[str] = set()
        if meta.occurred_at > record.at + self._clocks.slowest + AHEAD:
            codes.add("CLOCK_AHEAD")
        if meta.occurred_at < self._newest - DAY and self._last_issued.get(meta.event_id, meta.occurred_at) < self._newest - DAY:
            codes.add("COMMAND_EXPIRED")
        return codes

    def _decide(self, where: str, command: Command, meta: Meta, outcome: CommandHandled) -> None:
        first = self._first.setdefault(meta.event_id, (command, meta))
        if first[0] != command or first[1].aggregate_id != meta.aggregate_id:
            expected: str | None = "IDEMPOTENCY_KEY_REUSED"
        elif meta.event_id in self._answers:
            expected = self._answers[meta.event_id].code
            if outcome != self._answers[meta.event_id]:
                raise Wrong(f"{where} was sent again and answered {outcome.code}, first {expected}")
        else:
            before = len(self._model.lines)
            expected = self._model.rule(command, meta)
            if outcome.events != len(self._model.lines) - before:
                raise Wrong(f"{where}: its answer counts {outcome.events} events")
            self._answers[meta.event_id] = outcome
        if outcome.code != expected:
            raise Wrong(f"{where} was answered {outcome.code}, and {expected} would be right")
        if meta.occurred_at >= self._newest - DAY:
            self._last_issued[meta.event_id] = max(meta.occurred_at, self._last_issued.get(meta.event_id, meta.occurred_at))
            self._newest = max(self._newest, meta.occurred_at)


def contiguous(decisions: Sequence[Entry]) -> None:
    """Versions of each aggregate count from 1. Raises Wrong."""
    versions: dict[UUID, int] = {}
    for entry in decisions:
        event, meta = codec.decode(entry.value or b"")
        if isinstance(event, Decision):
            if meta.version != versions.get(meta.aggregate_id, 0) + 1:
                raise Wrong(
                    f"offset {entry.offset}: {_say(event, meta)} comes after version {versions.get(meta.aggregate_id, 0)}"
                )
            versions[meta.aggregate_id] = meta.version


def _say(event: Event, meta: Meta) -> str:
    if isinstance(event, CommandHandled):
        return f"the answer {event.code or 'accepted'} to a {event.command_type}"
    return f"{type(event).__name__} version {meta.version}"
