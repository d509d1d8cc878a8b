"""Streams that are fetched from another server over DTSC, where STREAM_SOURCE names the balancer (as MistServer 3.10 does it).

The buffer and its triggers are like those of a publisher's; there is no publisher, only a session of kind I from where the stream
comes. It ends half a minute after the last viewer's connection, or with its source.
"""

from __future__ import annotations

from zlib import crc32

from tests.mist.state import Buffer, Session, State

FULL_SECONDS = 1
IDLE_SECONDS = 30
UNWATCHED = "cancelable"
SOURCE_GONE = "uncancelablesource disconnected for non-resumable stream"


def begin(state: State, name: str, buffer: Buffer) -> None:
    now = state.clock.boot_seconds
    sessid = f"I{crc32(name.encode()):064x}"
    session = Session(sessid, "I", name, "198.51.100.9", "INPUT:DTSC", state.next_pid(), now)
    session.connections, session.down_rate = 1, 48_000
    state.sessions.append(session)
    state.total(name).inputs += 1
    state.fetched[name] = session
    buffer.full_at = now + FULL_SECONDS


def end(state: State, name: str) -> None:
    if session := state.fetched.pop(name, None):
        session.connections = 0


def why_over(state: State, name: str, buffer: Buffer) -> str | None:
    """What the buffer of a fetched stream says as it goes; None: it stays."""
    if name not in state.elsewhere:
        return SOURCE_GONE
    if any(s.connections for s in state.sessions_of(name) if not s.kind):
        buffer.idle_since = None
    elif buffer.idle_since is None:
        buffer.idle_since = state.clock.boot_seconds
    elif buffer.idle_since + IDLE_SECONDS <= state.clock.boot_seconds:
        return UNWATCHED
    return None
