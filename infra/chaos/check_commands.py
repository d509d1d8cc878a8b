"""Ledger against decisions: every answered command took effect exactly once, as it was first answered.

What is checked: an accepted command has its decisions once each, and an outcome; a refused one has none; one that was never
answered has them once or not at all; all outcomes and all answers of one command are the same; versions of an aggregate are
1, 2, 3, … in the order of the log; no tenant of ours has a decision that nobody sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from infra.chaos.findings import Finding, Wrong
from infra.chaos.ledger import Fields, Operation, Owed, State
from infra.chaos.log import Entry

OUTCOME = "CommandHandled"
_OF_OUTCOME = ("status", "code", "message", "field")


def check(operations: Sequence[Operation], log: Sequence[Entry]) -> Iterator[Finding]:
    commands = [o for o in operations if o.kind == "command"]
    decisions = [e for e in log if e.topic == "decisions"]
    caused: dict[str, list[Entry]] = defaultdict(list)
    outcomes: dict[str, list[Entry]] = defaultdict(list)
    for entry in decisions:
        if entry.type == OUTCOME:
            outcomes[str(entry.fields["command_id"])].append(entry)
        else:
            caused[entry.causation_id].append(entry)
    for command in commands:
        yield from _effects(command, caused[command.subject], outcomes[command.subject])
        yield from _answers(command)
    yield from _invented(commands, decisions)
    yield from versions(decisions)


def _effects(command: Operation, caused: Sequence[Entry], outcomes: Sequence[Entry]) -> Iterator[Finding]:
    where = f"operation {command.id}, command {command.subject}, {command.request.get('mutation')}"
    is_owed = command.state is State.ANSWERED
    for outcome in outcomes[1:]:
        if _said(outcome) != _said(outcomes[0]):
            what = f"answered {_said(outcome)}, but first {_said(outcomes[0])}"
            yield Finding(Wrong.DIFFERS, what, f"{where}, {outcome.place}")
    if is_owed and not outcomes:
        yield Finding(Wrong.LOST, "its outcome is not on the log", where, may_come=True)
    wanted = command.owed if outcomes and outcomes[0].fields["status"] == "ACCEPTED" else ()
    if is_owed and command.owed and not wanted and outcomes:
        yield Finding(Wrong.LOST, "the API said that it was done; on the log it is refused", f"{where}, {outcomes[0].place}")
    left = list(caused)
    for owed in wanted:
        match = next((e for e in left if matches(owed, e)), None)
        if match is None:
            yield Finding(Wrong.LOST, f"{owed.type} {dict(owed.fields)}", where)
        else:
            left.remove(match)
    for entry in left:
        is_again = any(entry.type == owed.type for owed in command.owed)
        yield Finding(Wrong.DOUBLED if is_again else Wrong.INVENTED, f"{entry.type} {entry.event_id}", f"{where}, {entry.place}")


def _answers(command: Operation) -> Iterator[Finding]:
    for answer in command.answers[1:]:
        if answer != command.answers[0]:
            what = f"a repetition was answered {answer}, the first time it was {command.answers[0]}"
            yield Finding(Wrong.DIFFERS, what, f"operation {command.id}, command {command.subject}")


def _invented(commands: Sequence[Operation], decisions: Sequence[Entry]) -> Iterator[Finding]:
    sent = {command.subject for command in commands}
    ours = {e.tenant_id for e in decisions if e.type == "TenantRegistered" and e.causation_id in sent}
    for entry in decisions:
        cause = str(entry.fields["command_id"]) if entry.type == OUTCOME else entry.causation_id
        if entry.tenant_id in ours and cause not in sent:
            yield Finding(Wrong.INVENTED, f"{entry.type} {entry.event_id} of command {cause}, which nobody sent", entry.place)


def versions(decisions: Sequence[Entry]) -> Iterator[Finding]:
    """Of every aggregate: 1, 2, 3, … by offset."""
    last: dict[str, int] = {}
    for entry in sorted(decisions, key=lambda e: (e.partition, e.offset)):
        if entry.type == OUTCOME:
            continue
        expected = last.get(entry.aggregate_id, 0) + 1
        if entry.version != expected:
            wrong = Wrong.LOST if entry.version > expected else Wrong.DOUBLED
            what = f"version {entry.version} of {entry.aggregate_id} where {expected} comes next"
            yield Finding(wrong, what, entry.place)
        last[entry.aggregate_id] = max(entry.version, expected)


def matches(owed: Owed, entry: Entry) -> bool:
    values: Fields = {**entry.fields, "event_id": entry.event_id}
    return entry.type == owed.type and all(values.get(name) == value for name, value in owed.fields.items())


def _said(outcome: Entry) -> Mapping[str, object]:
    return {name: outcome.fields.get(name) for name in _OF_OUTCOME}
