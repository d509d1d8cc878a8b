"""Pushes and recordings (CONTRACT 6.6): started by the controller, ended by anything, told within a second by the controller."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from tests.mist.publishers import NOTHING_SENT
from tests.mist.state import Push, Session, State

WRITERS = {".ts": "HTTPTS", ".mkv": "EBML", ".mp4": "MP4"}
SCHEMES = {"rtmp": "RTMP", "srt": "TSSRT", "http": "HTTPTS"}


def start(state: State, stream: str, target: str) -> None:
    """push_start: there is no result. Nothing happens for a target that runs already, is refused or that no output fits."""
    if any(p.stream == stream and p.target == target and p.is_running for p in state.pushes):
        return
    asked = state.fire("PUSH_OUT_START", stream, target, stream=stream).text
    used = target if asked is None else asked
    protocol = writer_of(used)
    if not used or protocol is None:
        return
    pid, now = state.next_pid(), state.clock.boot_seconds
    resolved = used.replace("$stream", stream).replace("$wildcard", stream.partition("+")[2])
    moment = datetime.fromtimestamp(state.clock.unix, UTC)
    resolved = resolved.replace("$datetime", moment.strftime("%Y.%m.%d.%H.%M.%S"))
    push = Push(pid, stream, target, resolved, now, None, protocol)
    state.pushes.append(push)
    if state.controller:
        state.controller.pushes.append(pid)
    host = "" if is_file(used) else "127.0.0.1"
    if state.flavour == "stock":
        state.fire("PLAY_REWRITE", stream, host, protocol, "", pid=pid, stream=stream)
    if stream not in state.buffers:
        finish(state, push, "UNKNOWN", "Stream open failed")
        return
    if not state.fire("CONN_PLAY", stream, host, protocol, "", pid=pid, stream=stream).is_yes:
        finish(state, push, "UNKNOWN", "Not allowed to play (CONN_PLAY)")
        return
    state.fire("CONN_OPEN", stream, host, protocol, "", pid=pid, stream=stream)
    sessid = "O" + hashlib.sha256(f"{stream} {resolved} {pid}".encode()).hexdigest()
    session = Session(sessid, "O", stream, host or "::", f"OUTPUT:{protocol}", state.next_pid(), now)
    session.connections, session.up_rate = 1, 50_000
    state.sessions.append(session)
    state.total(stream).outputs += 1
    push.session = session


def writer_of(target: str) -> str | None:
    scheme, separator, _ = target.partition("://")
    if separator:
        return SCHEMES.get(scheme)
    return next((name for ending, name in WRITERS.items() if target.partition("?")[0].endswith(ending)), None)


def is_file(target: str) -> bool:
    return "://" not in target


def finish(state: State, push: Push, code: str, text: str) -> None:
    """The process ends in order and says so."""
    if not push.is_running:
        return
    sent, seconds, now = sent_bytes(push), state.clock.boot_seconds - push.started, state.clock.unix
    _stop(push)
    media = str(seconds * 1000)
    figures = (str(sent), str(seconds), str(now - seconds), str(now), media, "0" if sent else NOTHING_SENT, media)
    host = "" if is_file(push.target_used) else "127.0.0.1"
    ended = (push.stream, push.target_used, push.protocol, *figures, code, text)
    told = [("CONN_CLOSE", (push.stream, host, push.protocol, "")), ("OUTPUT_END", (*ended, ""))]
    if is_file(push.target_used):
        is_fork = state.flavour == "fork"
        told.append(("RECORDING_END", (*ended, '{"tracks":null}', "") if is_fork else (*ended, "")))
        if is_fork:
            told.append(("RECORDING_SEGMENT", (push.stream, push.target_used, media, "0", media)))
    state.dice.shuffle(told)
    for trigger, lines in told:
        state.fire(trigger, *lines, pid=push.pid, stream=push.stream)


def kill(push: Push) -> None:
    """Its process says nothing; the controller will tell PUSH_END."""
    _stop(push)


def _stop(push: Push) -> None:
    push.is_running = False
    if push.session:
        push.session.connections = 0


def sent_bytes(push: Push) -> int:
    return push.session.up if push.session else 0


def status(state: State, push: Push) -> dict[str, object] | None:
    """Of the last whole five seconds."""
    seconds = (state.clock.boot_seconds - push.started) // 5 * 5
    if push.session is None or not seconds:
        return None
    return {"active_ms": seconds * 1000, "active_seconds": seconds, "bytes": seconds * 50_000, "media_tx": seconds * 1000}


def stop(state: State, wanted: int | str | list[int]) -> None:
    """push_stop: SIGTERM."""
    chosen = [wanted] if isinstance(wanted, int | str) else wanted
    for push in [p for p in state.pushes if p.pid in chosen or p.stream in chosen]:
        finish(state, push, "CLEAN_SIGNAL", "signal Terminated (15) from process 16212")


def poll(state: State) -> None:
    """The controller looks once a second for processes that are gone, and tells each once."""
    controller = state.controller
    if controller is None:
        return
    for push in [p for p in state.pushes if not p.is_running and p.pid in controller.pushes]:
        controller.pushes.remove(push.pid)
        state.pushes.remove(push)
        log = json.dumps(
            [[state.clock.unix, "INFO", "ended", push.stream, push.pid, "MistOut", "output.cpp:1"]], separators=(",", ":")
        )
        told = json.dumps(status(state, push), separators=(",", ":"))
        state.fire("PUSH_END", str(push.pid), push.stream, push.target, push.target_used, log, told, stream=push.stream)


def end_all_of(state: State, stream: str) -> None:
    """The stream has ended, and what read it."""
    for push in [p for p in state.pushes if p.stream == stream and p.is_running]:
        finish(state, push, "CLEAN_EOF", "end of stream")
