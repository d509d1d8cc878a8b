"""The two bodies that carry JSON about media: STREAM_BUFFER and LIVE_TRACK_LIST. Section 3 of the contract.

Invariant: numbers that the media server uses for "unknown" (4294967295 and beyond a long) never pass for measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from edge_agent.bodies import lines, number, whole
from edge_agent.redact import redacted_text
from streams.errors import Invalid
from streams.generated import BufferState, Track

MAX_INT = (1 << 31) - 1
MAX_TRACKS = 1000
_STATES = {"FULL": BufferState.FULL, "DRY": BufferState.DRY, "RECOVER": BufferState.RECOVER, "EMPTY": BufferState.EMPTY}


@dataclass(frozen=True, slots=True)
class Buffer:
    stream: str
    state: BufferState
    last_media_ms: int | None = None
    buffer_ms: int | None = None
    jitter_ms: int | None = None
    max_keepaway_ms: int | None = None
    bitrate_bps: int | None = None
    issues: str | None = None


@dataclass(frozen=True, slots=True)
class TrackList:
    stream: str
    tracks: tuple[Track, ...]


def stream_buffer(body: bytes) -> Buffer:
    """Stream, state, then health JSON; EMPTY has 2 lines (the source left) or the last media time in ms as third."""
    stream, state, *rest = lines(body, 2, 3)
    if state == "EMPTY":
        return Buffer(stream, BufferState.EMPTY, last_media_ms=number(rest[0]) if rest else None)
    if not rest:
        raise Invalid("2 lines instead of 3")
    health = _object(rest[0], "line 3")
    kbits = [whole(track.get("kbits")) for track in health.values() if isinstance(track, dict)]
    issues = health.get("issues")
    return Buffer(
        stream=stream,
        state=_STATES.get(state, BufferState.OTHER),
        buffer_ms=whole(health.get("buffer")),
        jitter_ms=whole(health.get("jitter")),
        max_keepaway_ms=whole(health.get("maxkeepaway")),
        bitrate_bps=1000 * sum(k for k in kbits if k is not None and 0 <= k <= MAX_INT) if kbits else None,
        issues=redacted_text(issues.strip()) or None if isinstance(issues, str) else None,
    )


def live_track_list(body: bytes) -> TrackList:
    """Stream, JSON object of tracks (empty line: none left), a final newline."""
    found = lines(body, 2, 3)
    if len(found) == 3 and found[2]:
        raise Invalid("3 lines instead of 2 and a final newline")
    if not found[1]:
        return TrackList(found[0], ())
    tracks = _object(found[1], "line 2")
    if len(tracks) > MAX_TRACKS:
        raise Invalid(f"{len(tracks)} tracks")
    return TrackList(found[0], tuple(_track(name, fields) for name, fields in sorted(tracks.items()) if isinstance(fields, dict)))


def _track(name: str, fields: Mapping[str, object]) -> Track:
    kind, codec, bytes_per_second, frames_per_kilosecond = (fields.get(k) for k in ("type", "codec", "bps", "fpks"))
    rate = whole(frames_per_kilosecond)
    return Track(
        name=redacted_text(name),
        kind=redacted_text(kind) if isinstance(kind, str) else "",
        codec=redacted_text(codec) if isinstance(codec, str) else "",
        bitrate_bps=8 * (_int(bytes_per_second) or 0),
        width=_int(fields.get("width")),
        height=_int(fields.get("height")),
        frame_rate=rate / 1000 if rate else None,
        channels=_int(fields.get("channels")),
        sample_rate_hz=_int(fields.get("rate")),
    )


def _int(value: object) -> int | None:
    found = whole(value)
    return found if found is not None and 0 <= found <= MAX_INT else None


def _object(text: str, where: str) -> Mapping[str, object]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Invalid(f"{where} is no JSON") from None
    if not isinstance(found, dict):
        raise Invalid(f"{where} is no JSON object")
    return found
