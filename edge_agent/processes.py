"""What the processes beside a stream say of their work: segments of recordings, transcoders, thumbnails.

Only the fork has most of them, and only RECORDING_SEGMENT was ever measured (section 8 of the contract). The others are read as
its public source writes them; a body of another form is kept raw, so that nothing is lost should the source be wrong.

Invariant: streams that are none of ours make no facts. A process's configuration and a rejected segment go no further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from edge_agent.bodies import checked_code, checked_connector, lines, media_ms, number, whole
from edge_agent.media import MAX_INT
from edge_agent.redact import redacted_target, redacted_text
from edge_agent.turn import Turn, subject_of
from streams.errors import Invalid
from streams.generated import (
    EncoderWindowMeasured,
    LivepeerSegmentCompleted,
    LivepeerSegmentRejected,
    MediaProcessExited,
    RecordingSegmentWritten,
    ThumbnailsUpdated,
)

_SIGNED = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?|-?inf|-?nan")
_STATUSES = frozenset(("clean", "retrying", "disabled", "unrecoverable", "stopped"))


@dataclass(frozen=True, slots=True)
class RecordingSegment:
    stream: str
    target: str
    media_ms: int
    first_media_ms: int | None
    last_media_ms: int | None


@dataclass(frozen=True, slots=True)
class ProcessExit:
    stream: str
    process: str
    pid: int
    exit_code: int
    boots: int
    status: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class SegmentComplete:
    stream: str
    segment: int
    first_media_ms: int
    media_ms: int
    width: int
    height: int
    input_bytes: int
    output_bytes: int
    renditions: int
    attempts: int
    turnaround_ms: int


@dataclass(frozen=True, slots=True)
class SegmentRejected:
    width: int | None
    height: int | None
    media_ms: int | None
    transcoders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncoderWindow:
    stream: str
    kind: str
    window_seconds: int
    input_frames: int
    output_frames: int
    input_bytes: int
    output_bytes: int
    input_codec: str
    output_codec: str
    width: int
    height: int
    source_advanced_ms: int
    output_advanced_ms: int
    is_final: bool


@dataclass(frozen=True, slots=True)
class Thumbnails:
    stream: str
    poster: str
    sprite: str
    index: str


# How they are read.


def recording_segment(body: bytes) -> RecordingSegment:
    """5 lines: stream, file, ms of media, first ms, last ms. Section 8."""
    stream, target, length, first, last = lines(body, 5)
    return RecordingSegment(stream, target, number(length), media_ms(first), media_ms(last))


def process_exit(body: bytes) -> ProcessExit:
    """9 lines: stream, process, its configuration as JSON, pid, exit code, starts, status, reason code, reason text."""
    stream, process, configuration, pid, exit_code, boots, status, code, text = lines(body, 9)
    _json(configuration, "line 3")
    if status not in _STATUSES:
        raise Invalid("a status that no process has")
    # A process that is stopped says the same sentence as its code and as its text.
    why = code if status == "stopped" and code == text else checked_code(code)
    return ProcessExit(stream, checked_connector(process), number(pid), _signed(exit_code), number(boots), status, why, text)


def segment_complete(body: bytes) -> SegmentComplete:
    """15 lines: stream, session, segment, start and length in ms, width, height, bytes in, bytes out, renditions, attempts, URL,
    turnaround in ms, speed, JSON of the renditions."""
    stream, _session, segment, start, length, width, height, *rest = lines(body, 15)
    sent, got, renditions, attempts, _url, turnaround, speed, detail = rest
    _decimal(speed)
    _json(detail, "line 15")
    return SegmentComplete(
        stream,
        number(segment),
        number(start),
        number(length),
        _int(width),
        _int(height),
        number(sent),
        number(got),
        _int(renditions),
        _int(attempts),
        number(turnaround),
    )


def segment_rejected(body: bytes) -> SegmentRejected:
    """5 lines: options as JSON, the segment in base64, JSON of the source track, first URL, second URL or `N/A`. Section 3."""
    options, _segment, track, *urls = lines(body, 5)
    _json(options, "line 1")
    fields = _json(track, "line 3")
    if not isinstance(fields, dict):
        raise Invalid("line 3 is no JSON object")
    width, height, length = (whole(fields.get(name)) for name in ("width", "height", "duration"))
    asked = tuple(redacted_target(url) for url in urls if url and url != "N/A")
    return SegmentRejected(_fitting(width), _fitting(height), length if length is not None and length >= 0 else None, asked)


def encoder_window(body: bytes) -> EncoderWindow:
    """31 lines: stream, kind, seconds, frames in and out since the start, frames and bytes in and out in the window,
    three times per frame, codecs in and out, sizes in and out, frame rates in and out, sample rate, channels, source and sink
    time and by how much each advanced in ms, two speeds, lag in ms, bits per second, 1 at the end."""
    found = lines(body, 31)
    stream, kind, seconds = found[:3]
    if kind not in ("video", "audio") or found[30] not in ("0", "1"):
        raise Invalid("no encoder's window")
    figures = [number(line) for line in (*found[3:12], *found[14:19], *found[20:26], found[29])]
    for decimal in (found[19], found[26], found[27]):
        _decimal(decimal)
    _signed(found[28])
    return EncoderWindow(
        stream=stream,
        kind=kind,
        window_seconds=number(seconds),
        input_frames=figures[2],
        output_frames=figures[3],
        input_bytes=figures[4],
        output_bytes=figures[5],
        input_codec=checked_connector(found[12]),
        output_codec=checked_connector(found[13]),
        width=_int(found[16]),
        height=_int(found[17]),
        source_advanced_ms=number(found[24]),
        output_advanced_ms=number(found[25]),
        is_final=found[30] == "1",
    )


def thumbnails(body: bytes) -> Thumbnails:
    """4 lines: stream, and the paths of the image, the sheet and its index."""
    return Thumbnails(*lines(body, 4))


# What is said of them.


def segment_written(turn: Turn, body: RecordingSegment) -> None:
    if stream := turn.policy.by_media_name(body.stream):
        path = redacted_target(body.target)
        fact = RecordingSegmentWritten(turn.node.node_id, path, body.media_ms, body.first_media_ms, body.last_media_ms)
        turn.say(fact, subject_of(stream))


def exited(turn: Turn, body: ProcessExit) -> None:
    if stream := turn.policy.by_media_name(body.stream):
        fact = MediaProcessExited(
            node_id=turn.node.node_id,
            process=body.process,
            pid=body.pid,
            exit_code=body.exit_code,
            boots=body.boots,
            status=body.status,
            end_reason=redacted_text(body.code),
            end_detail=redacted_text(body.text) or None,
        )
        turn.say(fact, subject_of(stream))


def transcoded(turn: Turn, body: SegmentComplete) -> None:
    if stream := turn.policy.by_media_name(body.stream):
        fact = LivepeerSegmentCompleted(
            node_id=turn.node.node_id,
            segment=body.segment,
            first_media_ms=body.first_media_ms,
            media_ms=body.media_ms,
            width=body.width,
            height=body.height,
            input_bytes=body.input_bytes,
            output_bytes=body.output_bytes,
            renditions=body.renditions,
            attempts=body.attempts,
            turnaround_ms=body.turnaround_ms,
        )
        turn.say(fact, subject_of(stream))


def rejected(turn: Turn, body: SegmentRejected) -> None:
    """About the node: the trigger does not name its stream."""
    fact = LivepeerSegmentRejected(turn.node.node_id, body.transcoders, body.width, body.height, body.media_ms)
    turn.say(fact, turn.node.subject)


def encoded(turn: Turn, body: EncoderWindow) -> None:
    if stream := turn.policy.by_media_name(body.stream):
        fact = EncoderWindowMeasured(
            node_id=turn.node.node_id,
            kind=body.kind,
            window_seconds=body.window_seconds,
            input_frames=body.input_frames,
            output_frames=body.output_frames,
            input_bytes=body.input_bytes,
            output_bytes=body.output_bytes,
            input_codec=body.input_codec,
            output_codec=body.output_codec,
            width=body.width,
            height=body.height,
            source_advanced_ms=body.source_advanced_ms,
            output_advanced_ms=body.output_advanced_ms,
            is_final=body.is_final,
        )
        turn.say(fact, subject_of(stream))


def thumbnails_updated(turn: Turn, body: Thumbnails) -> None:
    if stream := turn.policy.by_media_name(body.stream):
        paths = (redacted_target(path) for path in (body.poster, body.sprite, body.index))
        turn.say(ThumbnailsUpdated(turn.node.node_id, *paths), subject_of(stream))


def _json(text: str, where: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Invalid(f"{where} is no JSON") from None


def _signed(text: str) -> int:
    if not _SIGNED.fullmatch(text):
        raise Invalid(f"not a whole number where one belongs ({len(text)} characters)")
    return int(text)


def _decimal(text: str) -> None:
    if not _DECIMAL.fullmatch(text):
        raise Invalid(f"not a decimal number where one belongs ({len(text)} characters)")


def _int(text: str) -> int:
    value = number(text)
    if value > MAX_INT:
        raise Invalid("a number beyond 2^31")
    return value


def _fitting(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= MAX_INT else None
