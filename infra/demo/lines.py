"""Events and figures as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from infra.demo.operations import Event
from infra.demo.recording import Figures


def thousands(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


WORDS: Final[Mapping[str, Callable[[Event], str]]] = {
    "StreamSnapshot": lambda e: f"the stream is {e.state}, {e.viewers_now} viewers",
    "IngestStarted": lambda e: f"ingest started over {e.protocol}",
    "IngestEnded": lambda e: f"ingest ended: {e.end_reason}",
    "IngestRejected": lambda e: f"publisher refused: {e.reason}",
    "StreamWentLive": lambda _: "the stream is LIVE",
    "StreamWentOffline": lambda _: "the stream is offline",
    "BufferChanged": lambda e: f"buffer {e.buffer_state}" + (f": {e.issues}" if e.issues else ""),
    "TracksChanged": lambda e: f"tracks: {', '.join(t.codec for t in e.tracks or ()) or 'none'}",
    "ViewerJoined": lambda e: f"viewer joined over {e.connector}" + (f" from {e.country}" if e.country else ""),
    "ViewerLeft": lambda e: (
        f"viewer left after {thousands(e.seconds)} s, {thousands(e.up_bytes)} bytes{' (concluded)' if e.synthesized else ''}"
    ),
    "ViewerRejected": lambda e: f"viewer refused: {e.reason}",
    "StreamTotals": lambda e: f"the media server's totals: {thousands(e.viewers)} viewers, {thousands(e.up_bytes)} bytes up",
    "PushStarted": lambda e: f"push to {e.target} started",
    "PushEnded": lambda e: f"push to {e.target} ended: {e.end_reason}, {thousands(e.sent_bytes)} bytes",
    "RecordingEnded": lambda e: f"recorded {e.path}: {thousands(e.size_bytes)} bytes",
    "BandwidthMeasured": lambda e: f"the stream has {thousands(e.bytes_per_second)} bytes a second",
    "EventsSkipped": lambda e: f"events are missing here: {e.skip_reason}",
}


def line(event: Event) -> str:
    """One event in words."""
    words = WORDS.get(event.typename)
    return words(event) if words else event.typename


def rows(expected: Figures, found: Figures) -> Sequence[tuple[str, str, str]]:
    """What, by the recording, by the platform. Rows in which nothing happened are left out."""
    both = (expected, found)
    out = [
        ("ingests", *(str(f.ingests) for f in both)),
        ("second publishers refused", *(str(f.duplicates_refused) for f in both)),
        ("publishers with unknown keys refused", *(str(f.unknown_keys_refused) for f in both)),
        ("viewers", *(str(len(f.viewings)) for f in both)),
        ("  seconds", *(" / ".join(str(v.seconds) for v in f.viewings) for f in both)),
        ("  bytes up", *(" / ".join(thousands(v.up_bytes) for v in f.viewings) for f in both)),
        ("  bytes down", *(" / ".join(thousands(v.down_bytes) for v in f.viewings) for f in both)),
        ("pushes, bytes", *(" / ".join(map(thousands, f.push_bytes)) for f in both)),
        ("recordings, bytes", *(" / ".join(thousands(r.size_bytes) for r in f.files) for f in both)),
        ("recordings, seconds", *(" / ".join(str(r.seconds) for r in f.files) for f in both)),
    ]
    return [(what, one, other) for what, one, other in out if {one, other} - {"", "0"}]
