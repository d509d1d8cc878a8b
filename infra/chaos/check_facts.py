"""Ledger against facts: what the edge answered for and what the ingress acknowledged is on the log once, with its figures.

What is checked: of everything that was answered as many facts as operations, of what was sent and never answered at most that
many more; none that nobody sent; the facts of a stream's publisher in the order in which they were sent; an event id stands for
one content wherever it stands. Facts that the edge concludes (live, offline, synthesized ends) have no operation of their own.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from infra.chaos.findings import Finding, Wrong
from infra.chaos.ledger import Operation, Owed, State
from infra.chaos.log import FACTS, Entry, once

CONCLUDED = frozenset({"StreamWentLive", "StreamWentOffline", "IngestRejected"})
IN_ORDER = frozenset(
    {"BufferChanged", "RecordingEnded", "IngestEnded", "StreamTotals"}
)  # one task sends them, each after the other
Kind = tuple[str, str, str]  # stream, type, fields as JSON


def check(operations: Sequence[Operation], log: Sequence[Entry]) -> Iterator[Finding]:
    sent = [o for o in operations if o.kind in ("trigger", "sample")]
    streams = {o.subject for o in sent}
    ours = [e for e in log if e.topic in FACTS and e.aggregate_id in streams]
    yield from _contents(ours)
    facts = once(ours)
    shapes = _shapes(sent)
    allowed = {_owed_kind(o, owed) for o in sent if o.state is not State.LOST for owed in o.owed}
    found = defaultdict[Kind, list[Entry]](list)
    for fact in facts:
        kinds = [kind for names in shapes.get(fact.type, ()) if (kind := _kind(fact, names)) in allowed]
        if kinds:
            found[kinds[0]].append(fact)
        elif fact.type not in CONCLUDED and not fact.fields.get("synthesized"):
            yield Finding(Wrong.INVENTED, f"{fact.type} {fact.event_id}: {dict(fact.fields)}", fact.place)
    yield from _counts(sent, found)
    yield from _order(sent, found)


def _counts(sent: Sequence[Operation], found: Mapping[Kind, Sequence[Entry]]) -> Iterator[Finding]:
    answered, unknown = Counter[Kind](), Counter[Kind]()
    operations = defaultdict[Kind, list[int]](list)
    for operation in sent:
        for owed in operation.owed:
            kind = _owed_kind(operation, owed)
            operations[kind].append(operation.id)
            if operation.state is State.ANSWERED:
                answered[kind] += 1
            elif operation.state is State.UNKNOWN:
                unknown[kind] += 1
    for kind in {*answered, *unknown}:
        facts, numbers = found.get(kind, ()), operations[kind]
        where = f"operation{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:10]))}"
        what = f"{kind[1]} of stream {kind[0]} with {kind[2]}: {len(facts)} on the log, {answered[kind]} answered for"
        if len(facts) < answered[kind]:
            yield Finding(Wrong.LOST, what, where, may_come=True)
        if len(facts) > answered[kind] + unknown[kind]:
            yield Finding(Wrong.DOUBLED, f"{what}, {unknown[kind]} more sent", f"{where}; {'; '.join(f.place for f in facts)}")


def _order(sent: Sequence[Operation], found: Mapping[Kind, Sequence[Entry]]) -> Iterator[Finding]:
    last: dict[str, tuple[Operation, Entry]] = {}
    for operation in sent:
        for owed in operation.owed:
            facts = found.get(_owed_kind(operation, owed), ())
            if operation.state is not State.ANSWERED or owed.type not in IN_ORDER or len(facts) != 1:
                continue
            before = last.get(operation.subject)
            if before and facts[0].offset < before[1].offset:
                what = f"{owed.type} of operation {operation.id} stands before {before[1].type} of operation {before[0].id}"
                yield Finding(Wrong.OUT_OF_ORDER, what, f"{facts[0].place}; {before[1].place}")
            last[operation.subject] = operation, facts[0]


def _contents(facts: Sequence[Entry]) -> Iterator[Finding]:
    first: dict[str, Entry] = {}
    for fact in facts:
        known = first.setdefault(fact.event_id, fact)
        if (known.type, known.fields, known.aggregate_id) != (fact.type, fact.fields, fact.aggregate_id):
            yield Finding(Wrong.DIFFERS, f"two contents under the event id {fact.event_id}", f"{known.place}; {fact.place}")


def _shapes(sent: Sequence[Operation]) -> Mapping[str, Sequence[tuple[str, ...]]]:
    """By which fields the facts of each type are recognised, the most telling first."""
    found = defaultdict[str, set[tuple[str, ...]]](set)
    for operation in sent:
        for owed in operation.owed:
            found[owed.type].add(tuple(sorted(owed.fields)))
    return {name: sorted(shapes, key=lambda s: (-len(s), s)) for name, shapes in found.items()}


def _kind(fact: Entry, names: Sequence[str]) -> Kind:
    values = {**fact.fields, "event_id": fact.event_id}
    return fact.aggregate_id, fact.type, json.dumps({name: values.get(name) for name in names}, sort_keys=True)


def _owed_kind(operation: Operation, owed: Owed) -> Kind:
    return operation.subject, owed.type, json.dumps(dict(owed.fields), sort_keys=True)
