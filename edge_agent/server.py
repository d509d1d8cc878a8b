"""What the media server says of itself: its listeners, its list of streams, inputs that give up, streams that nobody finds.

Invariant: a configuration goes no further than the few fields that are named here; it may hold passwords of the operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import orjson

from edge_agent.bodies import Connection, checked_code, checked_connector, lines, number, whole
from edge_agent.counts import CLOSED, OPENED, PLAYED, STOPPED, Counts
from edge_agent.node_state import Subject
from edge_agent.redact import redacted_target, redacted_text
from edge_agent.turn import Turn, subject_of
from streams.errors import Invalid
from streams.generated import (
    BandwidthMeasured,
    InputAborted,
    ListenerStarted,
    ListenerStopped,
    StreamChange,
    StreamConfigured,
    StreamNotFound,
)

BANDWIDTH_EVERY_MS: Final = 10_000
NOT_FOUND_EVERY_MS: Final = 60_000
MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Listener:
    connector: str
    interface: str | None
    port: int | None


@dataclass(frozen=True, slots=True)
class StreamEntry:
    name: str
    source_kind: str | None


@dataclass(frozen=True, slots=True)
class InputAbort:
    stream: str
    source: str
    input: str
    pid: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Bandwidth:
    stream: str
    bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Asked:
    """DEFAULT_STREAM."""

    stream: str
    connector: str


class _NotFound(NamedTuple):
    """What StreamNotFound is thinned by; no stream: one that is none of ours."""

    connector: str
    subject: Subject | None
    internal_name: str | None


# How they are read. Sections named are of the measured contract.


def listener(body: bytes) -> Listener:
    """OUTPUT_START, OUTPUT_STOP: 1 line, the connector's configuration as JSON. Section 3."""
    found = _object(lines(body, 1)[0], "line 1")
    connector, interface, port = found.get("connector"), found.get("interface"), whole(found.get("port"))
    if not isinstance(connector, str):
        raise Invalid("a connector without a name")
    return Listener(
        checked_connector(connector),
        redacted_text(interface) if isinstance(interface, str) and interface else None,
        port if port is not None and 0 <= port <= MAX_PORT else None,
    )


def stream_entry(body: bytes) -> StreamEntry:
    """STREAM_ADD, STREAM_CONFIG: 2 lines, name and configuration as JSON. Section 3."""
    name, configuration = lines(body, 2)
    return StreamEntry(_named(name), _source_kind(_object(configuration, "line 2").get("source")))


def stream_removed(body: bytes) -> StreamEntry:
    """STREAM_REMOVE: 1 line, name. Section 3."""
    return StreamEntry(_named(lines(body, 1)[0]), None)


def input_abort(body: bytes) -> InputAbort:
    """6 lines: stream, source URI, program, pid, reason code, reason text. Section 3."""
    stream, source, program, pid, code, text = lines(body, 6)
    return InputAbort(stream, source, checked_connector(program), number(pid), checked_code(code), text)


def live_bandwidth(body: bytes) -> Bandwidth:
    """2 lines: stream, bytes per second. Section 3."""
    stream, rate = lines(body, 2)
    return Bandwidth(stream, number(rate))


def default_stream(body: bytes) -> Asked:
    """5 lines: default stream, requested stream, client address, connector, URL. Section 3."""
    _default, stream, _address, connector, _url = lines(body, 5)
    return Asked(stream, checked_connector(connector))


# What is said of them.


def output_start(turn: Turn, body: Listener) -> None:
    turn.say(ListenerStarted(turn.node.node_id, body.connector, body.interface, body.port), turn.node.subject)


def output_stop(turn: Turn, body: Listener) -> None:
    turn.say(ListenerStopped(turn.node.node_id, body.connector, body.interface, body.port), turn.node.subject)


def configured(change: StreamChange, turn: Turn, body: StreamEntry) -> None:
    name = redacted_text(body.name)
    turn.say(StreamConfigured(turn.node.node_id, name, change, body.source_kind), turn.node.subject)


stream_add = partial(configured, StreamChange.ADDED)
stream_config = partial(configured, StreamChange.CHANGED)
stream_remove = partial(configured, StreamChange.REMOVED)


def aborted(turn: Turn, body: InputAbort) -> None:
    """Of a stream of ours, or of the operator's: those pull from somewhere, and the operator wants to know why they stopped."""
    stream = turn.policy.by_media_name(body.stream)
    turn.say(
        InputAborted(
            node_id=turn.node.node_id,
            stream=redacted_text(body.stream),
            source=redacted_target(body.source),
            input=body.input,
            pid=body.pid,
            end_reason=body.code,
            end_detail=redacted_text(body.text) or None,
        ),
        subject_of(stream) if stream else turn.node.subject,
    )


def bandwidth(turn: Turn, body: Bandwidth) -> None:
    stream = turn.policy.by_media_name(body.stream)
    if stream and turn.state.counts.times(f"bandwidth {stream.stream_id}", None, turn.trigger.unix_ms, BANDWIDTH_EVERY_MS):
        turn.say(BandwidthMeasured(turn.node.node_id, body.bytes_per_second), subject_of(stream))


def not_found(turn: Turn, body: Asked) -> str:
    """Nothing: the media server goes on as it is configured. A player that polls asks again and again."""
    stream = turn.policy.by_media_name(body.stream)
    asked = _NotFound(body.connector, subject_of(stream) if stream else None, stream.internal_name if stream else None)
    key = f"not found {body.connector} {stream.stream_id if stream else ''}"
    if times := turn.state.counts.times(key, asked, turn.trigger.unix_ms, NOT_FOUND_EVERY_MS):
        turn.say(_fact(turn.node.node_id, asked, times), asked.subject or turn.node.subject)
    return ""


def still_not_found(counts: Counts, node_id: str, now_ms: int) -> Iterable[tuple[StreamNotFound, Subject | None, int]]:
    """(fact, whom it is about where not about the node, how often) of what was asked for again and is not said yet."""
    for asked, times in counts.overdue(_NotFound, now_ms, NOT_FOUND_EVERY_MS):
        yield _fact(node_id, asked, times), asked.subject, times


def _fact(node_id: str, asked: _NotFound, times: int) -> StreamNotFound:
    return StreamNotFound(node_id, asked.connector, times, asked.internal_name)


def _counted(what: int, turn: Turn, body: Connection) -> None:
    turn.state.counts.connection(body.connector, what, turn.now_ms)


opened, closed, played, stopped = (partial(_counted, what) for what in (OPENED, CLOSED, PLAYED, STOPPED))


def _object(text: str, where: str) -> dict[str, object]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Invalid(f"{where} is no JSON") from None
    if not isinstance(found, dict):
        raise Invalid(f"{where} is no JSON object")
    return found


def _named(name: str) -> str:
    if not name:
        raise Invalid("a stream without a name")
    return name


def _source_kind(source: object) -> str | None:
    """`push` of `push://…`, `file` of a path: the rest of a source may be secret."""
    if not isinstance(source, str) or not source:
        return None
    scheme, separator, _ = source.partition("://")
    return scheme.lower() if separator and len(scheme) <= 16 and scheme.replace("+", "").replace("-", "").isalnum() else "file"
