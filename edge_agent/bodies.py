"""Bodies of triggers, parsed strictly.

Invariant: fields are not escaped (CONTRACT section 1), so a newline that a viewer or publisher typed shifts every line behind
it. A body is therefore understood only when its lines are exactly as many, and of such kinds, as the contract says; anything
else raises Invalid and is never half-understood. Sections named in docstrings are of the measured contract.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson

from streams.errors import Invalid

MAX_NUMBER = (1 << 63) - 1
_NUMBER = re.compile(r"[0-9]{1,20}")
_SESSION_ID = re.compile(r"[0-9A-Za-z]{1,128}")
_CONNECTOR = re.compile(r"[0-9A-Za-z:,+.-]{0,64}")  # neither a URL nor one of our keys passes for one
_CODE = re.compile(r"[0-9A-Z_]{0,64}")
_SHARES = re.compile(r"[0-9]{0,20}(,[0-9]{0,20})*")


@dataclass(frozen=True, slots=True)
class RtmpPushRewrite:
    url: str
    address: str


@dataclass(frozen=True, slots=True)
class PushRewrite:
    url: str
    address: str
    name: str  # stream name as parsed from the URL: where our publishers have their key


@dataclass(frozen=True, slots=True)
class StreamPush:
    stream: str
    address: str
    connector: str
    url: str


@dataclass(frozen=True, slots=True)
class Connection:
    """CONN_OPEN, CONN_CLOSE, CONN_PLAY, CONN_STOP, PLAY_REWRITE."""

    stream: str
    address: str
    connector: str
    url: str


@dataclass(frozen=True, slots=True)
class UserNew:
    stream: str
    address: str
    connector: str
    session_id: str
    is_recheck: bool  # 6 lines: an accepted session asks again
    token: str = field(default="", repr=False)
    url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class UserEnd:
    streams: tuple[str, ...]  # empty for a session that was refused
    connectors: str
    seconds: int
    up_bytes: int  # sent to the viewer
    down_bytes: int
    session_id: str
    is_shifted: bool = False  # a newline was typed into the token, or into the name of a stream


@dataclass(frozen=True, slots=True)
class StreamEnd:
    stream: str
    down_bytes: int
    up_bytes: int
    viewers: int
    inputs: int
    outputs: int
    viewer_seconds: int


@dataclass(frozen=True, slots=True)
class OutputEnd:
    """OUTPUT_END and RECORDING_END."""

    stream: str
    target: str  # empty: no push, but a viewer or a publisher's receiver
    connector: str
    sent_bytes: int
    seconds: int
    started_unix: int
    ended_unix: int
    media_ms: int
    first_media_ms: int | None
    last_media_ms: int | None
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class PushOutStart:
    stream: str
    target: str


@dataclass(frozen=True, slots=True)
class PushEnd:
    pid: int
    stream: str
    target: str
    target_used: str
    status_bytes: int | None  # of the last periodic status: older than the end
    status_seconds: int | None
    status_media_ms: int | None
    last_complaint: str | None = None  # of its log: the newest line that is a warning or worse


@dataclass(frozen=True, slots=True)
class PushInputClose:
    stream: str
    connector: str
    pid: int
    code: str
    text: str


def text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"not UTF-8 at byte {error.start}") from None


def lines(body: bytes, *counts: int) -> list[str]:
    """The lines of a body that has one of these counts of them; a final newline makes an empty last line."""
    found = text(body).split("\n")
    if len(found) not in counts:
        raise Invalid(f"{len(found)} lines instead of {' or '.join(map(str, counts))}")
    return found


def number(value: str) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > MAX_NUMBER:
        raise Invalid(f"not a number where one belongs ({len(value)} characters)")
    return int(value)


def media_ms(value: str) -> int | None:
    """18446744073709551615 stands for "nothing was sent"."""
    if not _NUMBER.fullmatch(value):
        raise Invalid(f"not a time where one belongs ({len(value)} characters)")
    return None if int(value) > MAX_NUMBER else int(value)


def one_line(body: bytes) -> str:
    """SYSTEM_START, SYSTEM_STOP, STREAM_LOAD, STREAM_SOURCE, STREAM_PROCESS."""
    return lines(body, 1)[0]


def rtmp_push_rewrite(body: bytes) -> RtmpPushRewrite:
    """2 lines: full URL (decoded, so it may hold newlines), client address. Section 3."""
    return RtmpPushRewrite(*lines(body, 2))


def push_rewrite(body: bytes) -> PushRewrite:
    """3 lines: full URL, client address, stream name as parsed. Section 3."""
    return PushRewrite(*lines(body, 3))


def stream_push(body: bytes) -> StreamPush:
    """4 lines: stream, client address, connector, URL. Section 3."""
    stream, address, connector, url = lines(body, 4)
    return StreamPush(stream, address, checked_connector(connector), url)


def connection(body: bytes) -> Connection:
    """4 lines: stream, client address, connector, URL (empty last line where there is none). Section 3."""
    stream, address, connector, url = lines(body, 4)
    return Connection(stream, address, checked_connector(connector), url)


def user_new(body: bytes) -> UserNew:
    """7 lines on creation (the last `false`), 6 on a re-check: stream, address, token, connector, URL, session id. Section 3.

    A re-check into whose token a newline was typed has 7 lines too, but ends with the session id.
    """
    found = lines(body, 6, 7)
    if len(found) == 7 and found[6] not in ("false", "true"):
        raise Invalid("7 lines of which the last is neither true nor false")
    stream, address, token, connector, url, session_id = found[:6]
    is_recheck = len(found) == 6
    return UserNew(stream, address, checked_connector(connector), _checked_session(session_id), is_recheck, token, url)


def user_end(body: bytes) -> UserEnd:
    """12 lines: token, streams, connectors, addresses, seconds, up and down bytes, tags, three lists of seconds, session id.

    Section 3; "up" is sent to the viewer. A refused session has an empty stream line (6.5). A newline that was typed into the
    token makes the lines more (section 1). The token comes first and nobody needs it, so the others are counted from the end, and
    a viewing does not stay open for a trick of its viewer. Only the name of the stream is not certain then.
    """
    found = text(body).split("\n")
    if len(found) < 12:
        raise Invalid(f"{len(found)} lines instead of 12")
    streams, connectors, _hosts, seconds, up, down, _tags, *shares, session_id = found[-11:]
    if not all(map(_SHARES.fullmatch, shares)):
        raise Invalid("no list of seconds where one belongs")
    return UserEnd(
        streams=tuple(filter(None, streams.split(","))),
        connectors=checked_connector(connectors),
        seconds=number(seconds),
        up_bytes=number(up),
        down_bytes=number(down),
        session_id=_checked_session(session_id),
        is_shifted=len(found) > 12,
    )


def stream_end(body: bytes) -> StreamEnd:
    """7 lines: stream, down and up bytes, viewers, inputs, outputs, viewer seconds. Section 3."""
    stream, *figures = lines(body, 7)
    return StreamEnd(stream, *map(number, figures))


def stream_ready(body: bytes) -> str:
    """2 lines: stream, input type. Section 3."""
    return lines(body, 2)[0]


def stream_unload(body: bytes) -> str:
    """3 lines: stream, input type, `cancelable` or `uncancelable` directly followed by the reason. Section 3."""
    stream, _kind, why = lines(body, 3)
    if not why.startswith(("cancelable", "uncancelable")):
        raise Invalid("the third line says neither cancelable nor uncancelable")
    return stream


def push_out_start(body: bytes) -> PushOutStart:
    """2 lines: stream, target with variables not yet replaced. Section 3."""
    return PushOutStart(*lines(body, 2))


def push_end(body: bytes) -> PushEnd:
    """6 lines: push id (= pid), stream, target asked, target used, JSON array of log lines, JSON status or null. Section 3."""
    pid, stream, target, used, log, status_json = lines(body, 6)
    try:
        status = orjson.loads(status_json)
    except orjson.JSONDecodeError:
        raise Invalid("line 6 is no JSON") from None
    if not isinstance(status, dict):
        status = {}
    return PushEnd(
        pid=number(pid),
        stream=stream,
        target=target,
        target_used=used,
        status_bytes=whole(status.get("bytes")),
        status_seconds=whole(status.get("active_seconds")),
        status_media_ms=whole(status.get("media_tx")),
        last_complaint=_last_complaint(log),
    )


def _last_complaint(log: str) -> str | None:
    """Of log entries `[unix, level, text, …]`. It only explains: what cannot be read of it is left out."""
    try:
        entries = orjson.loads(log)
    except orjson.JSONDecodeError:
        return None
    for entry in reversed(entries if isinstance(entries, list) else []):
        if isinstance(entry, list) and len(entry) > 2 and entry[1] in ("WARN", "ERROR", "FAIL") and isinstance(entry[2], str):
            return entry[2]
    return None


def output_end(body: bytes) -> OutputEnd:
    """12 lines and a final newline: stream, target, connector, bytes, seconds, unix start and end, ms of media, first and last
    ms, reason code, reason text. Section 3."""
    return _output_end(lines(body, 12, 13), may_have_tracks=False)


def recording_end(body: bytes) -> OutputEnd:
    """As OUTPUT_END; the fork adds a 13th line of JSON, `{"tracks":…}`. Sections 3 and 8."""
    return _output_end(lines(body, 12, 13, 14), may_have_tracks=True)


def _output_end(found: list[str], *, may_have_tracks: bool) -> OutputEnd:
    if len(found) > 12 and not found[-1]:
        found = found[:-1]  # the final newline
    if len(found) == 13 and may_have_tracks and _is_object(found[12]):
        found = found[:12]
    if len(found) != 12:
        raise Invalid(f"{len(found)} lines instead of 12")
    stream, target, connector, sent, seconds, start, end, media, first, last, code, why = found
    return OutputEnd(
        stream=stream,
        target=target,
        connector=checked_connector(connector),
        sent_bytes=number(sent),
        seconds=number(seconds),
        started_unix=_unix(start),
        ended_unix=_unix(end),
        media_ms=media_ms(media) or 0,
        first_media_ms=media_ms(first),
        last_media_ms=media_ms(last),
        code=checked_code(code),
        text=why,
    )


def push_input_close(body: bytes) -> PushInputClose:
    """7 lines, fork only: stream, host, connector, pid, reason code, reason text, JSON array of tracks. Section 8."""
    stream, _host, connector, pid, code, why, _tracks = lines(body, 7)
    return PushInputClose(stream, checked_connector(connector), number(pid), checked_code(code), why)


def whole(value: object) -> int | None:
    """A whole number out of JSON that fits a long; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if -MAX_NUMBER <= value <= MAX_NUMBER else None


def _unix(value: str) -> int:
    seconds = number(value)
    if seconds >= 1 << 32:
        raise Invalid("a time beyond the year 2106")
    return seconds


def _checked_session(value: str) -> str:
    if not _SESSION_ID.fullmatch(value):
        raise Invalid("no session id where one belongs")
    return value


def checked_connector(value: str) -> str:
    if not _CONNECTOR.fullmatch(value):
        raise Invalid("no connector where one belongs")
    return value


def checked_code(value: str) -> str:
    if not _CODE.fullmatch(value):
        raise Invalid("no reason code where one belongs")
    return value


def _is_object(value: str) -> bool:
    try:
        return isinstance(orjson.loads(value), dict)
    except orjson.JSONDecodeError:
        return False
