"""Messages against the log: a subscriber was told of everything that happened to its stream, in order, without a silent hole.

What is checked: every event of the stream that is for subscribers came at least once (all of a subscription that began before
the first fact; decisions from version 2 on, for the snapshot holds the first); for the first time in the order of the log, facts
and decisions each for themselves; not more often than it stands on the log, but for events that were shown before a cut and are
shown again behind it; none that is not on the log. A hole that a marker tells of is no silent one: it is counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from infra.chaos.findings import Finding, Wrong
from infra.chaos.ledger import Heard
from infra.chaos.log import Entry, once

SNAPSHOT, SKIPPED = "StreamSnapshot", "EventsSkipped"


def gaps(messages: Sequence[Heard]) -> Counter[str]:
    return Counter(m.typename for m in messages if m.typename.startswith(SKIPPED))


def check(messages: Sequence[Heard], log: Sequence[Entry], published: Collection[str]) -> Iterator[Finding]:
    of_stream = defaultdict[str, list[Entry]](list)
    for entry in log:
        if entry.type in published and entry.topic in ("facts", "decisions"):
            of_stream[entry.aggregate_id].append(entry)
    by_stream = defaultdict[str, list[Heard]](list)
    for message in messages:
        by_stream[message.stream].append(message)
    for stream, heard in by_stream.items():
        events = [m for m in heard if m.typename != SNAPSHOT and not m.typename.startswith(SKIPPED)]
        has_holes = any(m.typename.startswith(SKIPPED) and "SLOW_READER" not in m.typename for m in heard)
        yield from _stream(stream, events, of_stream[stream], has_holes=has_holes)


def _stream(stream: str, heard: Sequence[Heard], entries: Sequence[Entry], *, has_holes: bool) -> Iterator[Finding]:
    where = f"subscription to {stream}"
    known = {entry.event_id: entry for entry in reversed(entries)}
    told = Counter(m.event_id for m in heard)
    standing = Counter(entry.event_id for entry in entries)
    for message in heard:
        if message.event_id not in known:
            yield Finding(Wrong.INVENTED, f"{message.typename} {message.event_id} is not on the log", where)
    for event_id, times in told.items():
        if times > standing[event_id] > 0:
            yield Finding(Wrong.DOUBLED, f"{known[event_id].type} {event_id} came {times} times", where)
    first = {m.event_id: n for n, m in reversed(list(enumerate(heard)))}
    for topic in ("facts", "decisions"):
        yield from _sequence(where, [e for e in once(entries) if e.topic == topic], first, has_holes=has_holes)


def _sequence(where: str, entries: Sequence[Entry], first: dict[str, int], *, has_holes: bool) -> Iterator[Finding]:
    last: tuple[int, Entry] | None = None
    for entry in entries:
        at = first.get(entry.event_id)
        if at is None:
            if entry.version != 1 and not has_holes:
                yield Finding(
                    Wrong.LOST, f"{entry.type} {entry.event_id} was never told", f"{where}, {entry.place}", may_come=True
                )
            continue
        if last and at < last[0]:
            what = f"{entry.type} {entry.event_id} came before {last[1].type} {last[1].event_id}"
            yield Finding(Wrong.OUT_OF_ORDER, what, f"{where}, {entry.place}")
        last = at, entry
