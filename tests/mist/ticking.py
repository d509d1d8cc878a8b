"""What happens as time goes by: sessions end after 15 s, refused ones after 600 s, streams when all of theirs are gone."""

from __future__ import annotations

from tests.mist import fetching, publishers, pushes, viewers
from tests.mist.state import PARKED, STAT_CUTOFF, STATS_DELAY, Session, State

STATISTICS_SECONDS = 5  # after a start of the controller they begin; for `clients` of five seconds ago that makes ten
IDLE_SECONDS = 30  # a buffer that nobody feeds


def tick(state: State) -> None:
    state.clock.boot_ms += 1000
    now = state.clock.boot_seconds
    for session in list(state.sessions):
        _tick_session(state, session, now)
    for name, buffer in list(state.buffers.items()):
        if buffer.is_dead:
            continue
        if publishers.is_fed(state, name):
            buffer.media_ms += 1000
        if buffer.full_at is not None and buffer.full_at <= now and publishers.is_fed(state, name):
            buffer.full_at = None
            publishers.tell_full(state, name, buffer)
        if name in state.fetched:
            if why := fetching.why_over(state, name, buffer):
                publishers.end_buffer(state, name, why, last_ms=buffer.media_ms)
        elif buffer.idle_since is not None and buffer.idle_since + IDLE_SECONDS <= now:
            publishers.end_buffer(state, name, "cancelable", last_ms=None)
    for push in [p for p in state.pushes if p.is_running and p.session is not None and p.stream not in state.buffers]:
        pushes.finish(state, push, "CLEAN_EOF", "end of stream")
    if state.controller:
        _log(state, now)
        pushes.poll(state)
        _end_streams(state, now)


def _tick_session(state: State, session: Session, now: int) -> None:
    if session.is_gone:
        state.sessions.remove(session)
    elif session.parked_since is not None:
        if session.parked_since + PARKED <= now:
            viewers.end_session(state, session)
    elif session.connections:
        session.last_seen = now
        session.seconds += 1
        state.watched[session.sessid] = state.watched.get(session.sessid, 0) + 1
        session.up += session.up_rate
        session.down += session.down_rate
    elif now - session.last_seen > STATS_DELAY:
        viewers.end_session(state, session)


def _log(state: State, now: int) -> None:
    """The controller's statistics: one entry a second for each session whose process lives."""
    controller = state.controller
    if controller is None or now - controller.started < STATISTICS_SECONDS:
        return
    for session in state.sessions:
        if session.is_gone or (session.parked_since is not None and not state.is_listing_parked):
            continue
        entries = controller.log.setdefault(session.sessid, [])
        entries.append((now, session, session.seconds, session.up, session.down))
    for sessid, entries in list(controller.log.items()):
        while entries and entries[0][0] < now - STAT_CUTOFF:
            entries.pop(0)
        if not entries:
            del controller.log[sessid]


def _end_streams(state: State, now: int) -> None:
    """STREAM_END, about a second after the last session of any kind is gone."""
    for name, total in list(state.totals.items()):
        if state.sessions_of(name):
            total.quiet_since = None
        elif total.quiet_since is None:
            total.quiet_since = now
        elif total.quiet_since < now:
            del state.totals[name]
            figures = (total.down, total.up, total.viewers, total.inputs, total.outputs, total.viewer_seconds)
            state.fire("STREAM_END", name, *map(str, figures), stream=name)
