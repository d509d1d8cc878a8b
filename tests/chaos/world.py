"""A small run as it should be: a ledger, the log that it led to, and what a subscriber was told. Tests then damage it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from infra.chaos import checker
from infra.chaos.findings import Wrong
from infra.chaos.ledger import Heard, Operation, Owed, State
from infra.chaos.log import Entry

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TENANT, STREAM = "tenant-1", "stream-1"
PUBLISHED = frozenset({"StreamCreated", "StreamRenamed", "BufferChanged", "ViewerJoined", "ViewerLeft"})


def entry(topic: str, offset: int, kind: str, event_id: str, cause: str, version: int = 0, **values: Any) -> Entry:
    aggregate = TENANT if kind in ("TenantRegistered", "ApiTokenIssued", "CommandHandled") else STREAM
    return Entry(topic, 0, offset, kind, event_id, TENANT, aggregate, version, cause, NOON, values)


def handled(offset: int, command: str, status: str = "ACCEPTED", code: str | None = None) -> Entry:
    values: dict[str, Any] = {"command_id": command, "status": status, "code": code, "message": None, "field": None}
    return entry("decisions", offset, "CommandHandled", f"outcome of {command}", command, **values)


def command(number: int, mutation: str, owed: list[Owed], state: State = State.ANSWERED, answers: int = 1) -> Operation:
    said = tuple({"__typename": f"{mutation}Success", "streamKey": "sk"} for _ in range(answers))
    return Operation(number, "command", TENANT, f"c{number}", {"mutation": mutation}, owed, state, said)


def trigger(number: int, owed: list[Owed], state: State = State.ANSWERED) -> Operation:
    return Operation(number, "trigger", "", STREAM, {"trigger": owed[0].type}, owed, state)


LEFT: dict[str, Any] = {"session_id": "s1", "seconds": 14, "up_bytes": 872_971, "synthesized": False}


def operations() -> list[Operation]:
    return [
        command(1, "createTenant", [Owed("TenantRegistered", {"name": "Acme"}), Owed("ApiTokenIssued")]),
        command(2, "createStream", [Owed("StreamCreated", {"title": "Lobby"})], answers=2),
        trigger(3, [Owed("BufferChanged", {"buffer_ms": 1})]),
        trigger(4, [Owed("BufferChanged", {"buffer_ms": 2})]),
        trigger(5, [Owed("ViewerJoined", {"session_id": "s1"})]),
        trigger(6, [Owed("ViewerLeft", LEFT)]),
        command(7, "renameStream", [Owed("StreamRenamed", {"title": "Stage"})]),
        command(8, "renameStream", []),
    ]


def log() -> list[Entry]:
    return [
        entry("decisions", 0, "TenantRegistered", "d1", "c1", 1, name="Acme"),
        entry("decisions", 1, "ApiTokenIssued", "d2", "c1", 2, name="first"),
        handled(2, "c1"),
        entry("decisions", 4, "StreamCreated", "d3", "c2", 1, title="Lobby"),
        handled(5, "c2"),
        handled(7, "c2"),  # a repetition is answered again
        entry("decisions", 9, "StreamRenamed", "d4", "c7", 2, title="Stage"),
        handled(10, "c7"),
        handled(12, "c8", "REJECTED", "STREAM_NOT_FOUND"),
        entry("facts", 0, "BufferChanged", "f1", "f1", buffer_ms=1),
        entry("facts", 1, "BufferChanged", "f2", "f2", buffer_ms=2),
        entry("facts", 2, "BufferChanged", "f2", "f2", buffer_ms=2),  # an edge that had no answer sent it again
        entry("facts", 3, "ViewerJoined", "f3", "f3", session_id="s1"),
        entry("facts", 4, "ViewerLeft", "f4", "f3", **LEFT),
    ]


def told() -> list[Heard]:
    names = {e.event_id: e.type for e in log()}
    return [
        Heard(STREAM, "StreamSnapshot", "snapshot", "0"),
        *(Heard(STREAM, names[n], n, n) for n in ("f1", "f2", "d4", "f3", "f4")),
    ]


@dataclass
class World:
    """What the checker sees."""

    operations: list[Operation] = field(default_factory=operations)
    log: list[Entry] = field(default_factory=log)
    told: list[Heard] = field(default_factory=told)

    def wrong(self) -> set[Wrong]:
        return {finding.wrong for finding in checker.of_log(self.operations, self.told, self.log, PUBLISHED)}

    def without(self, event_id: str) -> World:
        return replace(self, log=[e for e in self.log if e.event_id != event_id])

    def untold(self, event_id: str) -> World:
        return replace(self, told=[m for m in self.told if m.event_id != event_id])

    def with_entry(self, *more: Entry) -> World:
        return replace(self, log=[*self.log, *more])

    def with_state(self, number: int, state: State) -> World:
        changed = [replace(o, state=state) if o.id == number else o for o in self.operations]
        return replace(self, operations=changed)

    def found_at(self, event_id: str) -> Entry:
        return next(e for e in self.log if e.event_id == event_id)

    def swapped(self, one: str, other: str) -> World:
        """Two records change places, all of their copies."""
        a, b = self.found_at(one), self.found_at(other)
        kept = [e for e in self.log if e.event_id not in (one, other)]
        moved = [replace(a, offset=b.offset), replace(b, offset=a.offset)]
        return replace(self, log=sorted([*kept, *moved], key=lambda e: (e.topic, e.offset)))
