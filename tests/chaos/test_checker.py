"""The checker can fail: each way in which a promise may be broken is done to a good run, and the checker has to name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from infra.chaos.check_projections import compare, folded
from infra.chaos.findings import Wrong
from infra.chaos.ledger import Heard, State
from tests.chaos.world import STREAM, World, entry, handled

Damage = Callable[[World], World]


def test_a_good_run_has_no_findings() -> None:
    assert World().wrong() == set()


BROKEN: dict[str, tuple[Damage, Wrong]] = {
    "a decision is gone": (lambda w: w.without("d3"), Wrong.LOST),
    "the last decision of an aggregate is gone": (lambda w: w.without("d4"), Wrong.LOST),
    "an outcome is gone": (lambda w: w.without("outcome of c7"), Wrong.LOST),
    "a command took effect twice": (
        lambda w: w.with_entry(entry("decisions", 20, "StreamRenamed", "d9", "c7", 3, title="Stage")),
        Wrong.DOUBLED,
    ),
    "two decisions of one version": (
        lambda w: w.with_entry(entry("decisions", 20, "StreamRenamed", "d9", "c7", 2, title="Stage")),
        Wrong.DOUBLED,
    ),
    "a command did something else": (
        lambda w: w.with_entry(entry("decisions", 20, "StreamDeleted", "d9", "c7", 3)),
        Wrong.INVENTED,
    ),
    "a refused command took effect": (
        lambda w: w.with_entry(entry("decisions", 20, "StreamRenamed", "d9", "c8", 3, title="Other")),
        Wrong.INVENTED,
    ),
    "a decision that nobody asked for": (
        lambda w: w.with_entry(entry("decisions", 20, "StreamRenamed", "d9", "c99", 3, title="Other")),
        Wrong.INVENTED,
    ),
    "a decision with another title": (
        lambda w: replace(w, log=[replace(e, fields={"title": "No"}) if e.event_id == "d4" else e for e in w.log]),
        Wrong.LOST,
    ),
    "the second outcome is another one": (lambda w: w.with_entry(handled(20, "c2", "REJECTED", "SLUG_TAKEN")), Wrong.DIFFERS),
    "a repetition was answered with another key": (
        lambda w: replace(
            w,
            operations=[
                replace(o, answers=(o.answers[0], {**o.answers[0], "streamKey": "other"})) if o.id == 2 else o
                for o in w.operations
            ],
        ),
        Wrong.DIFFERS,
    ),
    "versions are swapped": (lambda w: w.swapped("d3", "d4"), Wrong.DOUBLED),
    "a fact is gone": (lambda w: w.without("f4").untold("f4"), Wrong.LOST),
    "a fact has another id when it is sent again": (
        lambda w: w.with_entry(entry("facts", 20, "BufferChanged", "f9", "f9", buffer_ms=2)),
        Wrong.DOUBLED,
    ),
    "an id stands for two contents": (
        lambda w: w.with_entry(entry("facts", 20, "BufferChanged", "f2", "f2", buffer_ms=1)),
        Wrong.DIFFERS,
    ),
    "a fact with wrong figures": (
        lambda w: replace(w, log=[replace(e, fields={**e.fields, "seconds": 15}) if e.event_id == "f4" else e for e in w.log]),
        Wrong.LOST,
    ),
    "a fact that nobody sent": (
        lambda w: w.with_entry(entry("facts", 20, "ViewerJoined", "f9", "f9", session_id="s9")),
        Wrong.INVENTED,
    ),
    "a fact of a trigger that was never connected": (lambda w: w.with_state(6, State.LOST), Wrong.INVENTED),
    "facts change places": (lambda w: w.swapped("f1", "f2"), Wrong.OUT_OF_ORDER),
    "a subscriber was not told": (lambda w: w.untold("f3"), Wrong.LOST),
    "a subscriber was not told of the last": (lambda w: w.untold("f4"), Wrong.LOST),
    "a subscriber was not told of a decision": (lambda w: w.untold("d4"), Wrong.LOST),
    "a subscriber was told twice": (lambda w: replace(w, told=[*w.told, w.told[-1]]), Wrong.DOUBLED),
    "a subscriber was told in another order": (
        lambda w: replace(w, told=[w.told[0], w.told[2], w.told[1], *w.told[3:]]),
        Wrong.OUT_OF_ORDER,
    ),
    "a subscriber was told of what is not on the log": (
        lambda w: replace(w, told=[*w.told, Heard(STREAM, "ViewerLeft", "f9", "f9")]),
        Wrong.INVENTED,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name: str) -> None:
    damage, expected = BROKEN[name]
    assert expected in damage(World()).wrong()


ALLOWED: dict[str, Damage] = {
    "what was never answered may be there": lambda w: w.with_state(6, State.UNKNOWN),
    "what was never answered may be missing": lambda w: w.with_state(6, State.UNKNOWN).without("f4").untold("f4"),
    "a command that was never answered may be there": lambda w: w.with_state(7, State.UNKNOWN),
    "a command that was never answered may be missing": lambda w: (
        w.with_state(7, State.UNKNOWN).without("d4").without("outcome of c7").untold("d4")
    ),
    "an end that the edge concluded": lambda w: w.with_entry(
        entry("facts", 20, "IngestEnded", "f9", "f9", seconds=None, synthesized=True)
    ),
    "a hole that a marker tells of": lambda w: replace(
        w.untold("f3"), told=[*w.untold("f3").told, Heard(STREAM, "EventsSkipped RETENTION", "gap", "gap")]
    ),
    "a fact that stands twice on the log is told twice behind a cut": lambda w: replace(w, told=[*w.told, w.told[2]]),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_promised_to_nobody_is_no_finding(name: str) -> None:
    assert ALLOWED[name](World()).wrong() == set()


def test_a_gap_marker_that_was_followed_excuses_no_hole() -> None:
    """SLOW_READER says from where to read again, and the subscriber does."""
    world = World().untold("f3")
    world.told.append(Heard(STREAM, "EventsSkipped SLOW_READER", "gap", "gap"))
    assert Wrong.LOST in world.wrong()


ROWS = {"a": [(1, "x")], "b": [(2, "y")]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ROWS, []),
        ({"a": [(1, "x")]}, [Wrong.LOST]),
        ({**ROWS, "a": [(1, "x"), (1, "x")]}, [Wrong.DOUBLED]),
        ({**ROWS, "a": [(1, "z")]}, [Wrong.DIFFERS]),
        ({**ROWS, "c": [(3, "z")]}, [Wrong.INVENTED]),
    ],
)
def test_rows_that_the_log_does_not_make(found: dict[str, list[tuple[object, ...]]], expected: list[Wrong]) -> None:
    assert [finding.wrong for finding in compare("table", ROWS, found)] == expected


def test_the_clean_fold_ends_with_the_last_decision() -> None:
    created = {"slug": "l", "playback_id": "p", "internal_name": "i", "key_prefix": "k"}
    world = World(log=[])
    log = [
        entry("decisions", 0, "StreamCreated", "d1", "c1", 1, title="Lobby", **created),
        entry("decisions", 1, "StreamRenamed", "d2", "c2", 2, title="Stage"),
        entry("facts", 0, "StreamWentLive", "f1", "f1"),
    ]
    _, streams = folded(world.with_entry(*log).log)["streams"]
    assert streams == {
        STREAM: [
            (
                "Stage",
                "l",
                "p",
                "i",
                "k",
                "2026-11-20T12:00:00.000+00:00",
                None,
                "2026-11-20T12:00:00.000+00:00",
                None,
                None,
                None,
            )
        ]
    }
