"""What the demo expects is what the recordings say, and the issue that asked for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.demo.lines import line, rows
from infra.demo.operations import Event
from infra.demo.recording import SCENARIOS, Figures, File, Viewing, figures, path_of, read
from infra.demo.run import Outcome

EXPECTED = {
    1: Figures(1, 0, 0, (Viewing(14, 872971, 2402), Viewing(17, 1263288, 3686), Viewing(22, 1395155, 4380)), (), ()),
    2: Figures(2, 1, 0, (Viewing(58, 2442137, 8651),), (), ()),
    3: Figures(1, 0, 0, (), (0, 568324, 765764, 1542309, 1794189), (File(568324, 9), File(765764, 16), File(1794189, 34))),
    4: Figures(1, 0, 4, (), (), ()),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_figures_of_the_recordings(scenario: int) -> None:
    assert figures(read(path_of(scenario))) == EXPECTED[scenario]


def test_every_event_type_has_words() -> None:
    snapshot = Event("StreamSnapshot", "c", "e", "now", state="LIVE", viewers_now=3)
    assert line(snapshot) == "the stream is LIVE, 3 viewers"
    left = Event("ViewerLeft", "c", "e", "now", seconds=14, up_bytes=872971, synthesized=False)
    assert line(left) == "viewer left after 14 s, 872,971 bytes"
    assert line(Event("SomethingNew", "c", "e", "now")) == "SomethingNew"


def test_rows_show_what_differs() -> None:
    found = Figures(1, 0, 0, EXPECTED[1].viewings[:2], (), ())
    table = {what: (one, other) for what, one, other in rows(EXPECTED[1], found)}
    assert table["viewers"] == ("3", "2")
    assert table["  bytes up"] == ("872,971 / 1,263,288 / 1,395,155", "872,971 / 1,263,288")
    assert "recordings, bytes" not in table


def test_an_outcome_is_equal_only_when_figures_and_subscriber_agree() -> None:
    left = [Event("ViewerLeft", "c", "e", "now", synthesized=False) for _ in range(3)]
    events = [Event("IngestStarted", "c", "e", "now"), *left]
    assert Outcome(1, "s", EXPECTED[1], EXPECTED[1], (), events).equal
    assert not Outcome(1, "s", EXPECTED[1], EXPECTED[2], (), events).equal
    unheard = Outcome(1, "s", EXPECTED[1], EXPECTED[1], (), events[:-1])
    assert not unheard.equal
    assert unheard.missed == ("ViewerLeft",)
    concluded = replace(unheard, events=[*events[:-1], Event("ViewerLeft", "c", "e", "now", synthesized=True)])
    assert concluded.missed == ("ViewerLeft",), "a concluded end is not the reported one"
