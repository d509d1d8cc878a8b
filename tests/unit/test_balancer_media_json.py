"""JSON as MistServer prints it: of the recorded length and with the recorded ending, whatever was recorded."""

from __future__ import annotations

import pytest

from gateway.balancer.media_json import pretty
from tests.balancer_recordings import recordings

OBJECTS = sorted(note for note, r in recordings().items() if isinstance(r.reply, dict) and "weights" not in note)


@pytest.mark.parametrize("note", OBJECTS)
def test_objects_have_the_recorded_bytes(note: str) -> None:
    recording = recordings()[note]
    text = pretty(recording.reply)
    assert len(text) == recording.length
    assert text.endswith(recording.ending)


def test_fractions_texts_and_nothing() -> None:
    assert pretty({"b": 52.1, "a": 'x"\n'}) == '{\n  "a":"x\\"\\n",\n  "b":52.1000000000\n}'
    assert (pretty({}), pretty([]), pretty(3)) == ("{}", "[]", "3")
