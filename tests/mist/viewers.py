"""Viewers: a session process for each (stream, address, token), and a process for each connection (CONTRACT section 3)."""

from __future__ import annotations

import hashlib
from zlib import crc32

from tests.mist.publishers import boot
from tests.mist.state import Connection, Session, State


def watch(state: State, stream: str, address: str, token: str | None, protocol: str, jwt: str | None) -> Connection:
    """A viewer opens a connection; without a token it gets one. `refusal` is None while it is shown something."""
    token = jwt or token or str(crc32(f"{address} {state.next_pid()}".encode()))
    url = f"http://127.0.0.1:18080/hls/{stream.replace('+', '%2b')}/index.m3u8"
    connection = Connection(state.next_pid(), stream, address, protocol, url, started=state.clock.boot_seconds)
    connection.refusal = _come_in(state, connection, token, jwt)
    if connection.refusal is not None:
        close(state, connection)
    return connection


def _come_in(state: State, connection: Connection, token: str, jwt: str | None) -> str | None:
    pid, address, protocol, url = connection.pid, connection.host, connection.protocol, connection.url
    if not state.fire("CONN_OPEN", "", address, "HTTP", "", pid=pid).is_yes:
        return "connection refused"
    if not state.fire("CONN_OPEN", connection.stream, address, protocol, "", pid=pid, stream=connection.stream).is_yes:
        return "connection refused"
    played = state.fire("PLAY_REWRITE", connection.stream, address, protocol, url, pid=pid, stream=connection.stream).text
    if played == "":
        return "never answered"
    stream = connection.stream = played or connection.stream
    if not state.is_configured(stream) or (stream not in state.buffers and not boot(state, stream, pid, is_trusted=False)):
        state.fire("DEFAULT_STREAM", "", stream, address, protocol, url, pid=pid, stream=stream)
        return "Stream open failed"
    session, refusal = _session(state, connection, token, jwt)
    if refusal and state.flavour == "fork":
        return refusal
    may_play = state.fire("CONN_PLAY", stream, address, protocol, url, pid=pid, stream=stream).is_yes  # also after a refusal
    if refusal or session is None:
        return refusal
    connection.session = session
    if not may_play:
        return "Not allowed to play (CONN_PLAY)"
    session.connections += 1
    session.last_seen = state.clock.boot_seconds
    return None


def session_id(stream: str, address: str, token: str) -> str:
    """The same for the same viewer, over restarts of everything."""
    return hashlib.sha256(f"{stream} {address} {token}".encode()).hexdigest()


def _session(state: State, connection: Connection, token: str, jwt: str | None) -> tuple[Session | None, str | None]:
    sessid = session_id(connection.stream, connection.host, token)
    known = next((s for s in state.sessions if s.sessid == sessid and not s.is_gone), None)
    if known and known.parked_since is not None:
        return None, "Shutting down since this session is not allowed"  # refused without being asked for again
    if known:
        return known, None
    pid, now = state.next_pid(), state.clock.boot_seconds
    session = Session(sessid, "", connection.stream, connection.host, connection.protocol, pid, now, token, connection.url)
    session.up_rate, session.down_rate = 52_000, 200
    state.sessions.append(session)
    if jwt is None or jwt not in state.jwts:
        lines = (session.stream, session.host, token, session.protocol, session.url, sessid, "false")
        if not state.fire("USER_NEW", *lines, pid=pid, stream=session.stream).is_yes:
            session.parked_since = state.clock.boot_seconds
            return None, "Shutting down due to session end"
    state.total(session.stream).viewers += 1
    return session, None


def recheck(state: State, session: Session) -> None:
    """invalidate_sessions: USER_NEW again, six lines this time."""
    if session.is_gone or session.parked_since is not None or session.token in state.jwts:
        return
    lines = (session.stream, session.host, session.token, session.protocol, session.url, session.sessid)
    if not state.fire("USER_NEW", *lines, pid=session.pid, stream=session.stream).is_yes:
        session.parked_since, session.connections = state.clock.boot_seconds, 0


def close(state: State, connection: Connection) -> None:
    """The connection ends; its session waits for another for 15 seconds."""
    if not connection.is_open:
        return
    connection.is_open = False
    if connection.session and connection.refusal is None and connection.session.connections:
        connection.session.connections -= 1
        connection.session.last_seen = state.clock.boot_seconds
    lines = (connection.stream, connection.host, connection.protocol, connection.url)
    state.fire("CONN_CLOSE", *lines, pid=connection.pid, stream=connection.stream)


def end_session(state: State, session: Session) -> None:
    """USER_END, of a session of a viewer that ends in order."""
    session.is_gone = True
    if session.kind:
        return
    if session.parked_since is not None and not session.seconds:
        empty = (session.token, "", "", "", "0", "0", "0", "", "", "", "", session.sessid)
        state.fire("USER_END", *empty, pid=session.pid)
        return
    seconds, up, down = (str(n) for n in (session.seconds, session.up, session.down))
    if not state.is_uncounted(session.host):
        total = state.total(session.stream)
        total.viewer_seconds, total.up, total.down = (
            total.viewer_seconds + session.seconds,
            total.up + session.up,
            total.down + session.down,
        )
    connector = "" if session.protocol == "HTTP" else session.protocol
    tags = f"[UA:viewer-{session.pid % 7}/1.0]" if state.dice.random() < 0.3 else ""
    lines = (session.token, session.stream, connector, session.host, seconds, up, down, tags)
    shares = (seconds, seconds if connector else "", seconds)
    state.fire("USER_END", *lines, *shares, session.sessid, pid=session.pid, stream=session.stream)
