"""Bodies are understood exactly when they follow the contract; else they are kept raw, answered safely, and change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from edge_agent import bodies, media
from edge_agent.bodies import MAX_NUMBER, OutputEnd, UserEnd
from edge_agent.catalogue import CATALOGUE, UNUSABLE_STREAM
from infra.recordings import names, read
from streams.errors import Invalid
from streams.generated import BufferState, TriggerInvalid
from tests.edge_node import AgentUnderTest

LINE = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30)
WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
NUMBER = st.integers(0, MAX_NUMBER)
UNIX = st.integers(0, (1 << 32) - 1)
SESSION = st.text("0123456789abcdef", min_size=64, max_size=64)
LINES_OF = {  # how many lines a good body has, by the contract, and how many more are good for what is allowed to differ
    "RTMP_PUSH_REWRITE": {2}, "PUSH_REWRITE": {3}, "STREAM_PUSH": {4}, "CONN_OPEN": {4}, "CONN_CLOSE": {4}, "CONN_PLAY": {4},
    "CONN_STOP": {4}, "PLAY_REWRITE": {4}, "USER_NEW": {6, 7}, "USER_END": set(range(12, 99)), "STREAM_END": {7},
    "STREAM_READY": {2},
    "STREAM_UNLOAD": {3}, "STREAM_LOAD": {1}, "STREAM_SOURCE": {1}, "STREAM_ADD": {2}, "STREAM_CONFIG": {2},
    "STREAM_REMOVE": {1}, "STREAM_PROCESS": {1}, "SYSTEM_START": {1}, "SYSTEM_STOP": {1}, "OUTPUT_START": {1},
    "OUTPUT_STOP": {1}, "PUSH_OUT_START": {2}, "PUSH_END": {6}, "RECORDING_END": {12, 13, 14}, "OUTPUT_END": {12, 13},
    "DEFAULT_STREAM": {5}, "INPUT_ABORT": {6}, "LIVE_BANDWIDTH": {2}, "LIVE_TRACK_LIST": {2, 3}, "STREAM_BUFFER": {2, 3},
    "PUSH_INPUT_CLOSE": {7}, "RECORDING_SEGMENT": {5}, "PROCESS_EXIT": {9}, "LIVEPEER_SEGMENT_COMPLETE": {15},
    "LIVEPEER_SEGMENT_REJECTED": {5}, "PROCESS_AV_VIRTUAL_SEGMENT_COMPLETE": {31}, "THUMBNAIL_UPDATED": {4},
}  # fmt: skip
REFUSING = {
    "RTMP_PUSH_REWRITE": "",
    "PUSH_REWRITE": "",
    "STREAM_PUSH": "false",
    "USER_NEW": "false",
    "PLAY_REWRITE": UNUSABLE_STREAM,
    "PUSH_OUT_START": "",
}


def text(*lines: object) -> bytes:
    return "\n".join(map(str, lines)).encode()


def test_every_trigger_of_the_contract_is_known() -> None:
    assert set(CATALOGUE) == set(LINES_OF)


@given(st.sampled_from(sorted(LINES_OF)), st.lists(LINE, min_size=1, max_size=20))
def test_a_wrong_number_of_lines_is_never_understood(name: str, lines: list[str]) -> None:
    if len(lines) in LINES_OF[name]:
        return
    agent = AgentUnderTest()
    body = text(*lines)
    outcome = agent.outcome(name, body)
    kept = [fact for fact in agent.said() if isinstance(fact, TriggerInvalid)]
    # an empty body has nothing to seal
    assert [(fact.trigger, fact.body, agent.opened(fact, "sealed_body")[0] if body else b"") for fact in kept] == [
        (name, b"", body)
    ]
    assert outcome.answer == REFUSING.get(name, "" if CATALOGUE[name].when_invalid == "" else "true")
    state = agent.agent.state
    assert not [*state.viewings, *state.ingests, *state.admissions, *state.pushes]


@given(st.sampled_from(sorted(CATALOGUE)), st.binary(max_size=200))
def test_no_bytes_at_all_break_a_handler(name: str, body: bytes) -> None:
    agent = AgentUnderTest()
    agent.outcome(name, body)
    assert all(meta.actor == "node:edge-1" for _, meta in agent.facts)


@pytest.mark.parametrize("recording", names())
def test_every_recorded_body_is_understood_and_no_line_more(recording: str) -> None:
    seen: set[str] = set()
    for line in read(recording):
        parse = CATALOGUE[line.name].run
        assert parse is not None
        seen.add(line.name)
        agent = AgentUnderTest()
        assert not agent.outcome(line.name, line.body).is_invalid, line.body
        if line.name not in ("STREAM_BUFFER", "USER_NEW"):
            assert AgentUnderTest().outcome(line.name, f"{line.body}x\ny\nz").is_invalid, line.name
    assert "USER_END" in seen or recording.startswith(("3-", "4-"))


@given(LINE, st.lists(WORD, max_size=3), NUMBER, NUMBER, NUMBER, SESSION, LINE)
def test_user_end(token: str, streams: list[str], seconds: int, up: int, down: int, session: str, tags: str) -> None:
    body = text(token, ",".join(streams), "HLS,HTTP", "::1", seconds, up, down, tags, "1", "1", "1", session)
    assert bodies.user_end(body) == UserEnd(tuple(streams), "HLS,HTTP", seconds, up, down, session)
    assert bodies.user_end(text("inj", "ected") + b"\n" + body) == replace(bodies.user_end(body), is_shifted=True)
    with pytest.raises(Invalid):
        bodies.user_end(body + b"\n")


@given(LINE, LINE, NUMBER, NUMBER, UNIX, st.integers(0, 1 << 64), WORD.map(str.upper), LINE, st.booleans())
def test_output_end(
    stream: str, target: str, sent: int, seconds: int, unix: int, first: int, code: str, why: str, ends_with_newline: bool
) -> None:
    body = text(stream, target, "RTMP", sent, seconds, unix, unix, 0, first, 0, code, why)
    first_ms = first if first <= MAX_NUMBER else None
    parsed = OutputEnd(stream, target, "RTMP", sent, seconds, unix, unix, 0, first_ms, 0, code, why)
    assert bodies.output_end(body + b"\n" * ends_with_newline) == parsed
    assert bodies.recording_end(body + b"\n" * ends_with_newline) == parsed
    assert bodies.recording_end(body + b'\n{"tracks":null}' + b"\n" * ends_with_newline) == parsed
    with pytest.raises(Invalid):
        bodies.output_end(body + b'\n{"tracks":null}\n')
    with pytest.raises(Invalid):
        bodies.recording_end(body + b"\nmore\n")


def numbers_that_are_none() -> SearchStrategy[str]:
    return st.sampled_from(
        ["", "-1", "1.5", "x", " 1", "1 ", "0x1", "1e3", str(MAX_NUMBER + 1), "9" * 30, "１"]
    )  # the last: a full-width digit


@given(numbers_that_are_none())
def test_what_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(Invalid):
        bodies.stream_end(text("live+lobby", value, 1, 2, 3, 4, 5))


def test_buffers() -> None:
    assert media.stream_buffer(b"s\nEMPTY") == media.Buffer("s", BufferState.EMPTY)
    assert media.stream_buffer(b"s\nEMPTY\n30261").last_media_ms == 30261
    assert media.stream_buffer(b's\nNEW\n{"buffer":1}').state is BufferState.OTHER
    full = media.stream_buffer(b's\nFULL\n{"v":{"kbits":100},"a":{"kbits":4294967295},"buffer":4245,"jitter":60,"issues":" "}')
    assert (full.bitrate_bps, full.buffer_ms, full.issues) == (100_000, 4245, None)
    for broken in (b"s\nFULL", b"s\nFULL\n[]", b"s\nFULL\n{", b"s\nEMPTY\nx", b"s", b"s\nDRY\n\n"):
        with pytest.raises(Invalid):
            media.stream_buffer(broken)


def test_track_lists() -> None:
    assert media.live_track_list(b"s\n\n").tracks == ()
    [track] = media.live_track_list(b's\n{"v":{"type":"video","codec":"H264","bps":1000,"fpks":25000,"width":320}}\n').tracks
    assert (track.bitrate_bps, track.frame_rate, track.width, track.height) == (8000, 25.0, 320, None)
    for broken in (b"s", b"s\n{\n", b"s\n[]\n", b"s\n{}\nmore"):
        with pytest.raises(Invalid):
            media.live_track_list(broken)
