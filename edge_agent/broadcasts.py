"""What the media server says of a stream's buffer, tracks and totals, and of itself.

Invariant: a stream goes live at the first sign of a filled buffer after it was offline, and offline when its buffer is empty;
both are said once each. Of one that is fetched from another node neither is said (`relays.py`).
"""

from __future__ import annotations

from uuid import UUID

from edge_agent import ingests, pushes, relays, viewers
from edge_agent.bodies import StreamEnd
from edge_agent.media import Buffer, TrackList
from edge_agent.node_state import CONTROLLER, Broadcast, ServerStart
from edge_agent.redact import redacted_text
from edge_agent.turn import Turn, subject_of
from streams.generated import (
    BufferChanged,
    BufferState,
    NodeStarted,
    NodeStopped,
    StreamPolicy,
    StreamTotals,
    StreamWentLive,
    StreamWentOffline,
    TracksChanged,
)


def stream_buffer(turn: Turn, body: Buffer) -> None:
    stream = turn.policy.by_media_name(body.stream)
    if stream is None:
        return
    known = turn.state.broadcasts.get(str(stream.stream_id))
    if relays.is_relayed(turn, stream):
        _relayed(turn, stream, body)
        if known and known.is_live:  # what was live here before: its own end may be heard late, or never
            go_offline(turn, stream, last_media_ms=body.last_media_ms)
        return
    turn.say(
        BufferChanged(
            node_id=turn.node.node_id,
            state=body.state,
            buffer_ms=body.buffer_ms,
            jitter_ms=body.jitter_ms,
            max_keepaway_ms=body.max_keepaway_ms,
            bitrate_bps=body.bitrate_bps,
            issues=body.issues,
        ),
        subject_of(stream),
    )
    match body.state:
        case BufferState.EMPTY:
            ingests.lose_source(turn, stream)
            if known is None or known.is_live:
                go_offline(turn, stream, last_media_ms=body.last_media_ms)
        case BufferState.FULL | BufferState.DRY | BufferState.RECOVER:
            # DRY and RECOVER are of a running buffer too: they are the first sign where FULL was lost.
            if known is None or not known.is_live:
                go_live(turn, stream)
        case BufferState.OTHER:
            pass


def go_live(turn: Turn, stream: StreamPolicy, *, evidence: str | None = None) -> None:
    turn.say(StreamWentLive(turn.node.node_id, stream.internal_name, evidence=evidence), subject_of(stream))
    turn.state.broadcasts.put(str(stream.stream_id), Broadcast(is_live=True, since_ms=turn.trigger.unix_ms))


def go_offline(
    turn: Turn, stream: StreamPolicy, *, last_media_ms: int | None = None, evidence: str | None = None, part: str = ""
) -> None:
    """It names the going live that is over: the stream may be live on another node by now, and this one may hear of it late."""
    key = str(stream.stream_id)
    known = turn.state.broadcasts.get(key)
    went = StreamWentOffline(
        node_id=turn.node.node_id,
        internal_name=stream.internal_name,
        last_media_ms=last_media_ms,
        evidence=evidence,
        live_since=None if known is None or known.since_ms is None else turn.moment(known.since_ms),
    )
    turn.say(went, subject_of(stream), part=part)
    turn.state.broadcasts.put(key, Broadcast(is_live=False))


def _relayed(turn: Turn, stream: StreamPolicy, body: Buffer) -> None:
    match body.state:
        case BufferState.EMPTY:
            relays.stopped(turn, stream)
        case BufferState.FULL | BufferState.DRY | BufferState.RECOVER:
            relays.started(turn, stream)
        case BufferState.OTHER:
            pass


def live_track_list(turn: Turn, body: TrackList) -> None:
    stream = turn.policy.by_media_name(body.stream)
    if stream and not relays.is_relayed(turn, stream):
        turn.say(TracksChanged(node_id=turn.node.node_id, tracks=body.tracks), subject_of(stream))


def new_buffer(turn: Turn, stream_name: str) -> None:
    """STREAM_LOAD, STREAM_READY, STREAM_UNLOAD: the buffer that a publisher of before had is not there any more."""
    if stream := turn.policy.by_media_name(stream_name):
        ingests.lose_source(turn, stream)


def stream_end(turn: Turn, body: StreamEnd) -> None:
    stream = turn.policy.by_media_name(body.stream)
    if stream is None:
        return
    viewers.end_stream(turn, stream)
    ingests.doubt(turn, stream)
    turn.say(
        StreamTotals(
            node_id=turn.node.node_id,
            internal_name=stream.internal_name,
            up_bytes=body.up_bytes,
            down_bytes=body.down_bytes,
            viewers=body.viewers,
            inputs=body.inputs,
            outputs=body.outputs,
            viewer_seconds=body.viewer_seconds,
        ),
        subject_of(stream),
    )


def system_start(turn: Turn, version: str) -> None:
    """The controller started. Nothing of before was said to have ended, and mostly it has (CONTRACT section 5)."""
    turn.say(NodeStarted(node_id=turn.node.node_id, software_version=redacted_text(version)), turn.node.subject)
    turn.state.server_starts.put(CONTROLLER, ServerStart(turn.trigger.unix_ms, turn.trigger.instance))
    if turn.is_verified:
        ingests.lose_all(turn)  # where only the controller crashed they go on, and the API will say so
        return
    conclude_all(turn)


def conclude_all(turn: Turn) -> None:
    """Ends everything that was open before the controller started."""
    viewers.conclude_all(turn)
    ingests.conclude_all(turn)
    pushes.conclude_all(turn)
    relays.conclude_all(turn)
    for key, broadcast in turn.state.broadcasts.items():
        stream = turn.policy.stream(UUID(key))
        if broadcast.is_live and stream:
            # Where only the controller crashed the stream goes on; its next STREAM_BUFFER says so and brings it back.
            go_offline(turn, stream, part=key)


def system_stop(turn: Turn, reason: str) -> None:
    turn.say(NodeStopped(node_id=turn.node.node_id, reason=redacted_text(reason)), turn.node.subject)
