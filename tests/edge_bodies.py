"""Bodies of every trigger as the measured contract has them, generated: what is sent, what has to be understood, what is secret.

Written from the contract (section 3 and, for the fork, section 8), not from the parsers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from edge_agent import bodies, media, processes, server
from streams.generated import BufferState
from tests.edge_node import KEY

MAX = (1 << 63) - 1
NOTHING_SENT = 18446744073709551615
STREAM = st.sampled_from(["live+lobby", "live+lobby", "live+nobody", "copy", "", "pblobby"])
LINE = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, MAX)
SMALL = st.integers(0, (1 << 31) - 1)
UNIX = st.integers(0, (1 << 32) - 1)
CONNECTOR = st.sampled_from(["RTMP", "HLS", "HTTPTS", "HTTP", "EBML", "", "OUTPUT:RTMP", "TSSRT", "WebRTC"])
CODE = st.sampled_from(["CLEAN_REMOTE_CLOSE", "CLEAN_INTENDED_STOP", "CLEAN_EOF", "CLEAN_SIGNAL", "TRIGGER", "SHM_LOST", ""])
SESSION = st.text("0123456789abcdef", min_size=64, max_size=64)
WORD = st.text("ghijklmnopqrstuvwxyz", min_size=20, max_size=24)  # no part of a session id
ADDRESS = st.integers(1, 254).map(lambda n: f"203.0.113.{n}")
ANY_KEY = st.sampled_from([KEY, "sk_zzzz9999_abcdefghijklmnopqrstuv"])


@dataclass(frozen=True)
class Sample:
    """`understood` is what a parser has to make of it."""

    body: bytes
    understood: object
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grammar:
    parse: Callable[[bytes], object]
    valid: SearchStrategy[Sample]
    numbers: tuple[int, ...] = ()  # lines, from 0, where a number belongs
    more_lines: frozenset[int] = frozenset()  # counts beside that of the sample that are good, too


def text(*lines: object) -> bytes:
    return "\n".join(map(str, lines)).encode()


Draw = Callable[[SearchStrategy[Any]], Any]


def grammar(
    parse: Callable[[bytes], object], numbers: tuple[int, ...] = (), more_lines: tuple[int, ...] = ()
) -> Callable[[Callable[[Draw], Sample]], Grammar]:
    def made(draw_one: Callable[[Draw], Sample]) -> Grammar:
        return Grammar(parse, st.composite(draw_one)(), numbers, frozenset(more_lines))

    return made


def secret_of(key: str) -> str:
    """What of a key must never be seen: ours are shown up to their prefix."""
    return key.rpartition("_")[2]


@grammar(bodies.rtmp_push_rewrite)
def rtmp_push_rewrite(draw: Draw) -> Sample:
    key, address = draw(ANY_KEY), draw(ADDRESS)
    url = f"rtmp://127.0.0.1:11935/live/{key}"
    return Sample(text(url, address), bodies.RtmpPushRewrite(url, address), (secret_of(key), address))


@grammar(bodies.push_rewrite)
def push_rewrite(draw: Draw) -> Sample:
    key, address, scheme = draw(ANY_KEY), draw(ADDRESS), draw(st.sampled_from(["rtmp", "srt", "whip"]))
    url = f"{scheme}://127.0.0.1/live/{key}"
    return Sample(text(url, address, key), bodies.PushRewrite(url, address, key), (secret_of(key), address))


@grammar(bodies.stream_push)
def stream_push(draw: Draw) -> Sample:
    key, address, stream, connector = draw(ANY_KEY), draw(ADDRESS), draw(STREAM), draw(CONNECTOR)
    url = f"rtmp://127.0.0.1:11935/live/{key}"
    return Sample(
        text(stream, address, connector, url), bodies.StreamPush(stream, address, connector, url), (secret_of(key), address)
    )


@grammar(bodies.connection)
def connection(draw: Draw) -> Sample:
    token, address, connector = draw(WORD), draw(ADDRESS), draw(CONNECTOR)
    stream = draw(STREAM | ANY_KEY)  # a rejected publisher's CONN_CLOSE has the key there
    url = draw(st.sampled_from(["", f"http://127.0.0.1:18080/hls/live%2blobby/index.m3u8?tkn={token}"]))
    secrets = (token, address, *([secret_of(stream)] if stream.startswith("sk_") else []))
    return Sample(text(stream, address, connector, url), bodies.Connection(stream, address, connector, url), secrets)


@grammar(bodies.user_new, more_lines=(6, 7))
def user_new(draw: Draw) -> Sample:
    stream, address, token, connector, session = (draw(s) for s in (STREAM, ADDRESS, WORD, CONNECTOR, SESSION))
    url, is_recheck = f"http://127.0.0.1/hls/x/index.m3u8?tkn={token}", draw(st.booleans())
    lines = (stream, address, token, connector, url, session)
    return Sample(
        text(*lines) if is_recheck else text(*lines, "false"),
        bodies.UserNew(stream, address, connector, session, is_recheck, token, url),
        (token, address),
    )


@grammar(bodies.user_end, numbers=(-8, -7, -6), more_lines=tuple(range(13, 40)))
def user_end(draw: Draw) -> Sample:
    token, address, session = draw(WORD), draw(ADDRESS), draw(SESSION)
    shift = draw(st.sampled_from(["", "", "\n", "\nlive+lobby\n1\n", "x\ny"]))
    streams = draw(st.lists(STREAM.filter(bool), max_size=2))
    seconds, up, down = draw(NUMBER), draw(NUMBER), draw(NUMBER)
    tags = draw(st.sampled_from(["", "[UA:Mozilla/5.0 (X11; Linux)]"]))
    lines = (token + shift, ",".join(streams), "HLS,HTTP", f"{address},::1", seconds, up, down, tags, "1,2", "", "3", session)
    end = bodies.UserEnd(tuple(streams), "HLS,HTTP", seconds, up, down, session, is_shifted="\n" in shift)
    return Sample(text(*lines), end, (token, address))


@grammar(bodies.stream_end, numbers=(1, 2, 3, 4, 5, 6))
def stream_end(draw: Draw) -> Sample:
    stream, figures = draw(STREAM), [draw(NUMBER) for _ in range(6)]
    return Sample(text(stream, *figures), bodies.StreamEnd(stream, *figures))


def one_of(draw: Draw) -> Sample:
    stream = draw(STREAM)
    return Sample(stream.encode(), stream)


@grammar(bodies.stream_ready)
def stream_ready(draw: Draw) -> Sample:
    stream = draw(STREAM)
    return Sample(text(stream, draw(st.sampled_from(["Buffer", "EBML"]))), stream)


@grammar(bodies.stream_unload)
def stream_unload(draw: Draw) -> Sample:
    stream, why = draw(STREAM), draw(st.sampled_from(["cancelable", "uncancelablesource disconnected", "cancelablesignal 15"]))
    return Sample(text(stream, "Buffer", why), stream)


@grammar(bodies.push_out_start)
def push_out_start(draw: Draw) -> Sample:
    stream, secret = draw(STREAM), draw(WORD)
    target = draw(
        st.sampled_from([f"rtmp://u:{secret}@example.org/app/{secret}", f"srt://h:1?passphrase={secret}", f"/rec/{KEY}"])
    )
    return Sample(text(stream, target), bodies.PushOutStart(stream, target), (secret, secret_of(KEY)))


@grammar(bodies.push_end, numbers=(0,))
def push_end(draw: Draw) -> Sample:
    stream, secret, pid = draw(STREAM), draw(WORD), draw(NUMBER)
    target, sent = f"rtmp://example.org/app/{secret}", draw(st.none() | SMALL)
    status = "null" if sent is None else json.dumps({"bytes": sent, "active_seconds": 4, "media_tx": 5, "current_target": target})
    log = json.dumps([[1, "INFO", f"pushing to {target}", stream, pid, "MistOutRTMP", "x.cpp:1"]])
    figures = (None, None, None) if sent is None else (sent, 4, 5)
    return Sample(
        text(pid, stream, target, target, log, status), bodies.PushEnd(pid, stream, target, target, *figures), (secret,)
    )


def _output_end(draw: Draw, tail: bytes, *, target: str) -> Sample:
    stream, connector, code, why = draw(STREAM), draw(CONNECTOR), draw(CODE), f"signal 15, key {KEY}"
    sent, seconds, start, end, length = draw(NUMBER), draw(NUMBER), draw(UNIX), draw(UNIX), draw(SMALL)
    first, last = draw(st.sampled_from([NOTHING_SENT, 0, 6021])), draw(SMALL)
    understood = bodies.OutputEnd(
        stream, target, connector, sent, seconds, start, end, length, None if first == NOTHING_SENT else first, last, code, why
    )
    lines = (stream, target, connector, sent, seconds, start, end, length, first, last, code, why)
    return Sample(text(*lines) + tail, understood, (secret_of(KEY),))


@grammar(bodies.output_end, numbers=(3, 4, 5, 6), more_lines=(12, 13))
def output_end(draw: Draw) -> Sample:
    return _output_end(draw, draw(st.sampled_from([b"", b"\n"])), target=draw(st.sampled_from(["", "/rec/a.ts"])))


@grammar(bodies.recording_end, numbers=(3, 4, 5, 6), more_lines=(12, 13, 14))
def recording_end(draw: Draw) -> Sample:
    tails = [b"", b"\n", b'\n{"tracks":null}', b'\n{"tracks":[{"codec":"AAC"}]}\n']
    return _output_end(draw, draw(st.sampled_from(tails)), target="/rec/a.ts")


@grammar(bodies.push_input_close, numbers=(3,))
def push_input_close(draw: Draw) -> Sample:
    stream, address, pid, code = draw(STREAM), draw(ADDRESS), draw(NUMBER), draw(CODE)
    lines = (stream, address, "RTMP", pid, code, f"received deleteStream of {KEY}", '[{"codec":"H264","id":1}]')
    return Sample(text(*lines), bodies.PushInputClose(stream, "RTMP", pid, code, str(lines[5])), (address, secret_of(KEY)))


@grammar(media.stream_buffer, more_lines=(2, 3))
def stream_buffer(draw: Draw) -> Sample:
    stream, state = draw(STREAM), draw(st.sampled_from(["FULL", "DRY", "RECOVER", "EMPTY"]))
    if state == "EMPTY":
        at = draw(st.none() | SMALL)
        lines = (stream, state) if at is None else (stream, state, at)
        return Sample(text(*lines), media.Buffer(stream, BufferState.EMPTY, last_media_ms=at))
    kbits, buffer, issues = draw(st.integers(0, 1 << 20)), draw(SMALL), draw(st.sampled_from([None, "High jitter (11205ms)! "]))
    health = {"video_H264_1": {"kbits": kbits, "codec": "H264"}, "buffer": buffer, "jitter": 120, "maxkeepaway": 45000}
    understood = media.Buffer(
        stream,
        BufferState(state),
        buffer_ms=buffer,
        jitter_ms=120,
        max_keepaway_ms=45000,
        bitrate_bps=1000 * kbits,
        issues=issues and issues.strip(),
    )
    return Sample(text(stream, state, json.dumps(health | ({"issues": issues} if issues else {}))), understood)


@grammar(media.live_track_list, more_lines=(2, 3))
def live_track_list(draw: Draw) -> Sample:
    stream = draw(STREAM)
    return Sample(text(stream, "", ""), media.TrackList(stream, ()))


@grammar(server.listener)
def listener(draw: Draw) -> Sample:
    port, secret = draw(st.integers(0, 65535)), draw(WORD)
    body = json.dumps({"connector": "TSSRT", "interface": "127.0.0.1", "port": port, "passphrase": secret}).encode()
    return Sample(body, server.Listener("TSSRT", "127.0.0.1", port), (secret,))


@grammar(server.stream_entry)
def stream_entry(draw: Draw) -> Sample:
    secret = draw(WORD)
    source, kind = draw(
        st.sampled_from([("push://", "push"), (f"dtsc://u:{secret}@h/x", "dtsc"), (f"/vod/{secret}.mkv", "file")])
    )
    return Sample(text("copy", json.dumps({"source": source, "x": secret})), server.StreamEntry("copy", kind), (secret,))


stream_removed = Grammar(server.stream_removed, st.just(Sample(b"copy", server.StreamEntry("copy", None))))


@grammar(server.input_abort, numbers=(3,))
def input_abort(draw: Draw) -> Sample:
    stream, secret, pid = draw(STREAM), draw(WORD), draw(NUMBER)
    source = f"srt://user:{secret}@h:9?passphrase={secret}"
    lines = (stream, source, "MistInTSSRT", pid, "READ_START_FAILURE", f"Opening input '{source}' failed")
    return Sample(text(*lines), server.InputAbort(stream, source, "MistInTSSRT", pid, str(lines[4]), str(lines[5])), (secret,))


@grammar(server.live_bandwidth, numbers=(1,))
def live_bandwidth(draw: Draw) -> Sample:
    stream, rate = draw(STREAM), draw(NUMBER)
    return Sample(text(stream, rate), server.Bandwidth(stream, rate))


@grammar(server.default_stream)
def default_stream(draw: Draw) -> Sample:
    stream, address, key = draw(STREAM | ANY_KEY), draw(ADDRESS), draw(ANY_KEY)
    lines = ("", stream, address, "RTMP", f"rtmp://127.0.0.1/live/{key}")
    return Sample(text(*lines), server.Asked(stream, "RTMP"), (address, secret_of(key)))


@grammar(processes.recording_segment, numbers=(2, 3, 4))
def recording_segment(draw: Draw) -> Sample:
    stream, secret, length = draw(STREAM), draw(WORD), draw(SMALL)
    target = f"s3+https://key:{secret}@bucket.example.org/a.ts"
    return Sample(text(stream, target, length, 1, 2), processes.RecordingSegment(stream, target, length, 1, 2), (secret,))


@grammar(processes.process_exit, numbers=(3, 4, 5))
def process_exit(draw: Draw) -> Sample:
    stream, secret, pid, code = draw(STREAM), draw(WORD), draw(NUMBER), draw(st.integers(-255, 255))
    configuration = json.dumps({"process": "Livepeer", "access_token": secret})
    status, (why, said) = draw(
        st.sampled_from([("clean", ("CLEAN_EOF", "end of file")), ("stopped", ("config changed", "config changed"))])
    )
    lines = (stream, "Livepeer", configuration, pid, code, 1, status, why, said)
    return Sample(text(*lines), processes.ProcessExit(stream, "Livepeer", pid, code, 1, status, why, said), (secret,))


@grammar(processes.segment_complete, numbers=(2, 3, 4, 5, 6, 7, 8, 9, 10, 12))
def segment_complete(draw: Draw) -> Sample:
    stream, secret, sent = draw(STREAM), draw(WORD), draw(NUMBER)
    url = f"https://{secret}@transcoder.example.org"
    lines = (stream, secret, 7, 14000, 2000, 1280, 720, sent, 9, 2, 1, url, 350, "5.714", '[{"name":"720p","bytes":9}]')
    understood = processes.SegmentComplete(stream, 7, 14000, 2000, 1280, 720, sent, 9, 2, 1, 350)
    return Sample(text(*lines), understood, (secret,))


@grammar(processes.segment_rejected)
def segment_rejected(draw: Draw) -> Sample:
    secret = draw(WORD)
    lines = (json.dumps({"token": secret}), "AAAA", '{"width":1,"height":2,"duration":3}', f"https://u:{secret}@t.org/x", "N/A")
    return Sample(text(*lines), processes.SegmentRejected(1, 2, 3, ("https://t.org/x",)), (secret,))


@grammar(processes.encoder_window, numbers=(2, 3, 7, 20, 29))
def encoder_window(draw: Draw) -> Sample:
    stream, is_final, lag = draw(STREAM), draw(st.booleans()), draw(st.integers(-5000, 5000))
    lines = (
        stream, "video", 5, 1000, 999, 125, 124, 7000, 6000, 1, 2, 3, "H264", "AV1", 1920, 1080, 1280, 720, 25000, "24.800000",
        0, 0, 40000, 39000, 5000, 4960, "1.000000", "0.992000", lag, 9600, int(is_final),
    )  # fmt: skip
    understood = processes.EncoderWindow(stream, "video", 5, 125, 124, 7000, 6000, "H264", "AV1", 1280, 720, 5000, 4960, is_final)
    return Sample(text(*lines), understood)


@grammar(processes.thumbnails)
def thumbnails(draw: Draw) -> Sample:
    stream, paths = draw(STREAM), ("/tmp/p.jpg", "/tmp/s.jpg", "/tmp/s.vtt")
    return Sample(text(stream, *paths), processes.Thumbnails(stream, *paths))


_one_line = Grammar(bodies.one_line, st.composite(one_of)())
GRAMMARS: Mapping[str, Grammar] = {
    "RTMP_PUSH_REWRITE": rtmp_push_rewrite, "PUSH_REWRITE": push_rewrite, "STREAM_PUSH": stream_push, "USER_NEW": user_new,
    "USER_END": user_end, "CONN_OPEN": connection, "CONN_CLOSE": connection, "CONN_PLAY": connection, "CONN_STOP": connection,
    "PLAY_REWRITE": connection, "STREAM_END": stream_end, "STREAM_READY": stream_ready, "STREAM_UNLOAD": stream_unload,
    "STREAM_LOAD": _one_line, "STREAM_SOURCE": _one_line, "STREAM_PROCESS": _one_line, "SYSTEM_START": _one_line,
    "SYSTEM_STOP": _one_line, "OUTPUT_START": listener, "OUTPUT_STOP": listener, "STREAM_ADD": stream_entry,
    "STREAM_CONFIG": stream_entry, "STREAM_REMOVE": stream_removed, "PUSH_OUT_START": push_out_start, "PUSH_END": push_end,
    "OUTPUT_END": output_end, "RECORDING_END": recording_end, "PUSH_INPUT_CLOSE": push_input_close,
    "STREAM_BUFFER": stream_buffer, "LIVE_TRACK_LIST": live_track_list, "INPUT_ABORT": input_abort,
    "LIVE_BANDWIDTH": live_bandwidth, "DEFAULT_STREAM": default_stream, "RECORDING_SEGMENT": recording_segment,
    "PROCESS_EXIT": process_exit, "LIVEPEER_SEGMENT_COMPLETE": segment_complete,
    "LIVEPEER_SEGMENT_REJECTED": segment_rejected, "PROCESS_AV_VIRTUAL_SEGMENT_COMPLETE": encoder_window,
    "THUMBNAIL_UPDATED": thumbnails,
}  # fmt: skip
