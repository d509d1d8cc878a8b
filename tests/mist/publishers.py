"""Publishers: every step at which one can be refused, and every way in which one ends (CONTRACT section 3)."""

from __future__ import annotations

import hashlib
import json

from tests.mist import fetching
from tests.mist.state import Buffer, Connection, Session, State

NOTHING_SENT = "18446744073709551615"
FULL_SECONDS = 4
TRACKS = {
    "audio_AAC_1ch_48000hz_2": {"bps": 0, "channels": 1, "codec": "AAC", "idx": 2, "jitter": 120, "rate": 48000, "type": "audio"},
    "video_H264_320x180_25fps_1": {
        "bps": 0,
        "codec": "H264",
        "fpks": 25000,
        "height": 180,
        "idx": 1,
        "type": "video",
        "width": 320,
    },
}
HEALTH = {
    "audio_AAC_1ch_48000hz_2": {"buffer": 4245, "codec": "AAC", "jitter": 60, "kbits": 62},
    "video_H264_320x180_25fps_1": {"buffer": 4245, "codec": "H264", "jitter": 20, "kbits": 240},
    "buffer": 4245,
    "jitter": 120,
    "maxkeepaway": 45000,
    "tracks": ["video_H264_320x180_25fps_1", "audio_AAC_1ch_48000hz_2"],
}


def publish(state: State, key: str, address: str, protocol: str, jwt: str | None) -> Connection:
    """Somebody publishes with this key. What came of it: `refusal` is None while it is on the air."""
    url = f"{protocol.lower()}://127.0.0.1:11935/live/{key}"
    connection = Connection(state.next_pid(), key, address, protocol, url, started=state.clock.boot_seconds)
    connection.refusal = _come_in(state, connection, key, jwt)
    if connection.is_hanging:
        state.hanging.append(connection)
    elif connection.refusal is not None:
        _hang_up(state, connection, connection.refusal, connection.refusal)
        _forget_if_idle(state, connection.stream)
    return connection


def _come_in(state: State, connection: Connection, key: str, jwt: str | None) -> str | None:
    """The code of the refusal; None: on the air."""
    pid, address, protocol = connection.pid, connection.host, connection.protocol
    if not state.fire("CONN_OPEN", "", address, protocol, "", pid=pid).is_yes:
        connection.is_open = False
        return "CLEAN_REMOTE_CLOSE"
    is_trusted = key in state.streamkeys or (jwt is not None and jwt in state.jwts)
    name = state.streamkeys.get(key, key)
    if not is_trusted:
        if protocol == "RTMP":
            url = state.fire("RTMP_PUSH_REWRITE", connection.url, address, pid=pid).text
            if url == "":
                return "CLEAN_REMOTE_CLOSE"
            name = (url or connection.url).rpartition("/")[2]
        rewritten = state.fire("PUSH_REWRITE", connection.url, address, name, pid=pid).text
        if rewritten == "":
            return "TRIGGER"
        name = name if rewritten is None else rewritten
    base, plus, rest = name.partition("?")[0].partition("+")
    name = f"{base.lower()}{plus}{rest}"
    if name.startswith(" ") or len(name) >= 125:
        return "UNKNOWN"
    connection.stream = name
    if not state.is_configured(name) and not is_trusted:
        state.fire("STREAM_LOAD", name, pid=pid, stream=name)
        state.fire("STREAM_SOURCE", name, pid=pid, stream=name)
        state.fire("DEFAULT_STREAM", "", name, address, protocol, connection.url, pid=pid, stream=name)
        return "UNKNOWN"
    if not boot(state, name, pid, is_trusted=is_trusted):
        connection.is_hanging = name in state.locks
        return "CLEAN_REMOTE_CLOSE"
    state.total(name).inputs += 1  # also of one that STREAM_PUSH refuses
    if not is_trusted and not state.fire("STREAM_PUSH", name, address, protocol, connection.url, pid=pid, stream=name).is_yes:
        return "CLEAN_REMOTE_CLOSE"
    _go_on_air(state, connection)
    return None


def boot(state: State, name: str, pid: int, *, is_trusted: bool) -> bool:
    """Starts the buffer of a stream where none runs. Whether there is one then."""
    if (known := state.buffers.get(name)) and not known.is_dead:
        known.idle_since = None
        return True
    source = None
    if not is_trusted:
        if not state.fire("STREAM_LOAD", name, pid=pid, stream=name).is_yes:
            return False
        source = state.fire("STREAM_SOURCE", name, pid=pid, stream=name).text
        if source and not source.startswith("push://") and not (source.startswith("balance:") and name in state.elsewhere):
            return False
    if name in state.locks:
        return False
    buffer = Buffer(state.next_pid())
    if not state.fire("STREAM_READY", name, "Buffer", pid=buffer.pid, stream=name).is_yes:
        return False
    state.buffers[name] = buffer
    if state.flavour == "fork":
        state.fire("STREAM_PROCESS", name, pid=buffer.pid, stream=name)
    if source and source.startswith("balance:"):
        fetching.begin(state, name, buffer)
        tell_tracks(state, name, buffer)
    return True


def _go_on_air(state: State, connection: Connection) -> None:
    name, now = connection.stream, state.clock.boot_seconds
    identity = f"{name} {connection.host} {connection.url} {connection.protocol}"
    sessid = "I" + hashlib.sha256(identity.encode()).hexdigest()
    session = Session(sessid, "I", name, connection.host, f"INPUT:{connection.protocol}", state.next_pid(), now)
    session.connections, session.down_rate, session.up_rate = 1, 48_000, 100
    connection.session = session
    state.sessions.append(session)
    state.publishers[connection.pid] = connection
    buffer = state.buffers.get(name)
    if buffer:
        buffer.full_at = buffer.full_at or now + FULL_SECONDS
        tell_tracks(state, name, buffer)


def tell_tracks(state: State, name: str, buffer: Buffer) -> None:
    tracks = json.dumps(TRACKS, separators=(",", ":")) if is_fed(state, name) else ""
    state.fire("LIVE_TRACK_LIST", name, tracks, "", pid=buffer.pid, stream=name)


def publishers_of(state: State, name: str) -> list[Connection]:
    return [c for c in state.publishers.values() if c.stream == name]


def is_fed(state: State, name: str) -> bool:
    return name in state.fetched or bool(publishers_of(state, name))


def leave(state: State, connection: Connection, code: str, text: str) -> None:
    """A publisher that was on the air, or on its way, is gone, and its process says so."""
    if connection in state.hanging:
        state.hanging.remove(connection)
        _hang_up(state, connection, code, text)
        return
    if state.publishers.pop(connection.pid, None) is None:
        return
    _hang_up(state, connection, code, text)
    lose_source(state, connection.stream)


def vanish(state: State, connection: Connection) -> None:
    """Its process was killed: it says nothing, its buffer does."""
    if state.publishers.pop(connection.pid, None) is None:
        return
    _disconnect(connection)
    lose_source(state, connection.stream)


def _hang_up(state: State, connection: Connection, code: str, text: str) -> None:
    pid, name, now = connection.pid, connection.stream, state.clock.unix
    _disconnect(connection)
    connection.is_open = False
    seconds = state.clock.boot_seconds - connection.started
    told: list[tuple[str, tuple[str, ...]]] = [("CONN_CLOSE", (name, connection.host, connection.protocol, connection.url))]
    figures = ("3740", str(seconds), str(now - seconds), str(now), "0", NOTHING_SENT, "0")
    told.append(("OUTPUT_END", (name, "", connection.protocol, *figures, code, text, "")))
    if state.flavour == "fork" and connection.refusal is None:
        tracks = json.dumps([{"codec": "H264", "id": 1, "idx": 1, "type": "video"}], separators=(",", ":"))
        told.insert(0, ("PUSH_INPUT_CLOSE", (name, connection.host, connection.protocol, str(pid), code, text, tracks)))
    state.dice.shuffle(told)  # they swap freely
    for trigger, lines in told:
        state.fire(trigger, *lines, pid=pid, stream=name)


def _disconnect(connection: Connection) -> None:
    if connection.session:
        connection.session.connections = 0


def lose_source(state: State, name: str) -> None:
    """When the last publisher of a stream is gone its buffer ends: three triggers in any order."""
    buffer = state.buffers.get(name)
    if buffer is None or buffer.is_dead:
        return
    if publishers_of(state, name):
        tell_tracks(state, name, buffer)
        return
    end_buffer(state, name, "uncancelablesource disconnected for non-resumable stream", last_ms=None)


def end_buffer(state: State, name: str, why: str, last_ms: int | None) -> None:
    buffer = state.buffers.pop(name)
    fetching.end(state, name)
    if not buffer.is_guarded:
        state.locks.add(name)
    empty = (name, "EMPTY") if last_ms is None else (name, "EMPTY", str(last_ms))
    told = [("STREAM_BUFFER", empty), ("LIVE_TRACK_LIST", (name, "", "")), ("STREAM_UNLOAD", (name, "Buffer", why))]
    state.dice.shuffle(told)
    for trigger, lines in told:
        state.fire(trigger, *lines, pid=buffer.pid, stream=name)


def _forget_if_idle(state: State, name: str) -> None:
    if (buffer := state.buffers.get(name)) and not publishers_of(state, name):
        buffer.idle_since = state.clock.boot_seconds  # it goes after 30 s, cancelable


def tell_full(state: State, name: str, buffer: Buffer) -> None:
    health = json.dumps(HEALTH, separators=(",", ":"))
    state.fire("STREAM_BUFFER", name, "FULL", health, pid=buffer.pid, stream=name)
