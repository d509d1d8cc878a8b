"""Stops, crashes and starts (CONTRACT section 5): what is said of them, and what goes on."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tests.mist import publishers
from tests.mist.state import State

STARTS = 3  # a handler of SYSTEM_START that says no keeps the guard restarting; for ever, but not here
DEFAULT_CONFIG: dict[str, Any] = {
    "accesslog": "LOG",
    "defaultStream": None,
    "prometheus": "",
    "protocols": [
        {"connector": "HTTP", "interface": "127.0.0.1", "port": 18080},
        {"connector": "RTMP", "interface": "127.0.0.1", "port": 11935},
        {"connector": "HLS"},
    ],
    "serverid": "edge-under-test",
    "sessionInputMode": 15,
    "sessionOutputMode": 15,
    "sessionStreamInfoMode": 1,
    "sessionUnspecifiedMode": 0,
    "sessionViewerMode": 14,
    "tknMode": 15,
    "triggers": {},
    "trustedproxy": [],
}


def start(state: State, *, is_everything: bool) -> None:
    """A controller comes up. `is_everything`: its listeners, too, as after a stop."""
    if not state.saved:
        state.saved = {"config": deepcopy(DEFAULT_CONFIG), "streams": deepcopy(state.streams)}
    for _ in range(STARTS):
        controller = state.controller = state.new_controller()
        state.streams = deepcopy(state.saved["streams"])
        version = "3.10-fork" if state.flavour == "fork" else "3.10"
        is_let = state.fire("SYSTEM_START", version).is_yes  # no X-Instance yet
        controller.is_instance_known = True
        if is_let:
            break
        state.controller = None
    else:
        return
    controller.pushes = [push.pid for push in state.pushes]
    if is_everything:
        for protocol in controller.config["protocols"]:
            if "port" in protocol:
                line = f'{{"connector":"{protocol["connector"]}","interface":"127.0.0.1","port":{protocol["port"]}}}'
                state.fire("OUTPUT_START", line)


def save(state: State) -> None:
    if state.controller:
        state.saved = {"config": deepcopy(state.controller.config), "streams": deepcopy(state.streams)}


def stop(state: State) -> bool:
    """SIGTERM to the controller. What is said of the rest is a race; never USER_END, STREAM_END, PUSH_END."""
    if state.controller is None or not state.fire("SYSTEM_STOP", "signal Terminated (15) from process 25933").is_yes:
        return False
    save(state)
    for connection in list(state.publishers.values()):
        if state.dice.random() < 0.5:
            publishers.leave(state, connection, "CLEAN_SIGNAL", "signal Terminated (15) from process 25935")
    state.controller = None
    _end_everything(state)
    return True


def kill_guard(state: State, name: str) -> None:
    """Nothing is said; when the buffer ends later, its lock stays."""
    state.buffers[name].is_guarded = False


def kill_everything(state: State) -> None:
    """Nothing is said of anything."""
    state.controller = None
    _end_everything(state)


def _end_everything(state: State) -> None:
    for session in state.sessions:
        session.is_gone = True
    for push in state.pushes:
        push.is_running = False
    state.sessions.clear()
    state.pushes.clear()
    state.publishers.clear()
    state.fetched.clear()
    state.buffers.clear()
    state.totals.clear()
    state.later.clear()


def kill_controller(state: State, *, with_guard: bool) -> None:
    """The controller alone; its guard starts it again at once, and everything else goes on."""
    state.controller = None
    state.totals = {name: total for name, total in state.totals.items() if state.sessions_of(name)}
    if not with_guard:
        start(state, is_everything=False)


def kill_buffer(state: State, name: str, *, is_production: bool) -> None:
    """The serving buffer. Production build: the publisher is dropped and it is ready again. Else: nothing at all is said."""
    buffer = state.buffers.get(name)
    if buffer is None:
        return
    if not is_production:
        buffer.is_dead = True
        return
    for connection in publishers.publishers_of(state, name):
        state.publishers.pop(connection.pid, None)
        publishers._hang_up(state, connection, "CLEAN_SIGNAL", "signal Terminated (15) from process 8885")
    buffer.pid = state.next_pid()
    buffer.full_at = None
    state.fire("STREAM_READY", name, "Buffer", pid=buffer.pid, stream=name)
    buffer.idle_since = state.clock.boot_seconds


def nuke(state: State, name: str) -> None:
    """nuke_stream: the buffer is terminated, the publisher dropped. Sessions of viewers stay until they are idle."""
    state.locks.discard(name)
    for connection in [c for c in state.hanging if c.stream == name]:  # nothing is said of them
        state.hanging.remove(connection)
        connection.is_open = False
    if name not in state.buffers:
        return
    for connection in publishers.publishers_of(state, name):
        state.publishers.pop(connection.pid, None)
        publishers._hang_up(state, connection, "CLEAN_SIGNAL", "signal Terminated (15) from process 12241")
    why = "cancelablesignal Terminated (15) from process 12241"
    publishers.end_buffer(state, name, why, last_ms=30_261)
