"""What shall be done with a stream on the node that has it, as a fold of decisions: push targets, recordings, stops.

Invariant: whatever is listed was asked for and not called off; a record comes into being with the first thing that is asked for,
so a stream of which nothing is asked has none. `version` is whoever publishes it to count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streams.generated import (
    Event,
    Meta,
    PushTargetCreated,
    PushTargetDeleted,
    PushTargetDisabled,
    PushTargetEnabled,
    RecordingCalledOff,
    RecordingRequested,
    StreamDeleted,
    StreamStopRequested,
    StreamTasks,
    WantedPush,
    WantedRecording,
    WantedStop,
)

HANDLES: Final = frozenset[type](
    {
        PushTargetCreated,
        PushTargetEnabled,
        PushTargetDisabled,
        PushTargetDeleted,
        RecordingRequested,
        RecordingCalledOff,
        StreamStopRequested,
        StreamDeleted,
    }
)
STOPS_KEPT: Final = 4


def evolve(tasks: StreamTasks | None, event: Event, meta: Meta) -> StreamTasks | None:
    """A stream's tasks after one more decision about it."""
    match event:
        case PushTargetCreated(enabled=True) | PushTargetEnabled():
            known = tasks or _none(meta, event.internal_name)
            wanted = WantedPush(meta.event_id, event.target_id, event.sealed_url)
            others = (push for push in known.pushes if push.target_id != event.target_id)
            return replace(known, pushes=(*others, wanted))
        case RecordingRequested():
            known = tasks or _none(meta, event.internal_name)
            recording = WantedRecording(meta.event_id, event.recording_id, event.container)
            return replace(known, recordings=(*known.recordings, recording))
        case StreamStopRequested():
            known = tasks or _none(meta, event.internal_name)
            stop = WantedStop(meta.event_id, event.expires_at)
            return replace(known, stops=(*known.stops, stop)[-STOPS_KEPT:])
    if tasks is None:
        return None
    match event:
        case PushTargetDisabled(target_id=target_id) | PushTargetDeleted(target_id=target_id):
            return replace(tasks, pushes=tuple(push for push in tasks.pushes if push.target_id != target_id))
        case RecordingCalledOff(recording_id=recording_id):
            return replace(tasks, recordings=tuple(r for r in tasks.recordings if r.recording_id != recording_id))
        case StreamDeleted():
            return replace(tasks, pushes=(), recordings=())
        case _:
            return tasks


def _none(meta: Meta, internal_name: str) -> StreamTasks:
    return StreamTasks(meta.tenant_id, meta.aggregate_id, internal_name, version=0)
