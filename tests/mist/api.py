"""The JSON API (CONTRACT section 6): commands in, answers out, and nothing that says whether it worked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tests.mist import crashes, publishers, pushes, viewers
from tests.mist.state import PRIVATE, STATS_DELAY, Session, State
from tests.mist.triggers import FORK_ONLY, ONFAIL

CLIENT_FIELDS = ("host", "stream", "protocol", "conntime", "position", "down", "up", "downbps", "upbps", "sessid", "pktcount",
                 "pktlost", "pktretransmit")  # fmt: skip
CHALLENGE = "27a1ccb927c04d7f0dff19cb8fd90d28"  # the same all day for one peer
STOCK_TRIGGERS = (
    "CONN_CLOSE", "CONN_OPEN", "CONN_PLAY", "DEFAULT_STREAM", "INPUT_ABORT", "LIVEPEER_SEGMENT_REJECTED", "LIVE_BANDWIDTH",
    "LIVE_TRACK_LIST", "OUTPUT_END", "OUTPUT_START", "OUTPUT_STOP", "PLAY_REWRITE", "PUSH_END", "PUSH_OUT_START", "PUSH_REWRITE",
    "RECORDING_END", "RTMP_PUSH_REWRITE", "STREAM_ADD", "STREAM_BUFFER", "STREAM_CONFIG", "STREAM_END", "STREAM_LOAD",
    "STREAM_PUSH", "STREAM_READY", "STREAM_REMOVE", "STREAM_SOURCE", "STREAM_UNLOAD", "SYSTEM_START", "SYSTEM_STOP", "USER_END",
    "USER_NEW",
)  # fmt: skip
Answer = dict[str, Any]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def authorize(state: State, commands: Mapping[str, Any], *, is_local: bool, is_in: bool) -> tuple[Answer, bool]:
    """(what `authorize` says, whether the commands are executed)."""
    offered = commands.get("authorize")
    offered = offered if isinstance(offered, dict) else {}
    if state.account is None:
        if "new_username" in offered:
            state.account = offered["new_username"], offered["new_password"]
            return {"challenge": CHALLENGE, "status": "ACC_MADE"}, is_local
        return {"status": "NOACC"}, is_local
    if is_local:
        return {"local": True, "status": "OK"}, True
    user, password = state.account
    if is_in or (offered.get("username") == user and offered.get("password") == _md5(_md5(password) + CHALLENGE)):
        return {"status": "OK"}, True
    return {"challenge": CHALLENGE, "status": "CHALL"}, False


def execute(state: State, commands: Mapping[str, Any]) -> Answer:
    """All commands of one request. Unknown ones are ignored."""
    answer: Answer = {"LTS": 1}
    _configure(state, commands, answer)
    _act(state, commands)
    if "clients" in commands:
        asked = commands["clients"]
        several = [clients(state, one) for one in asked] if isinstance(asked, list) else clients(state, asked)
        answer["clients"] = several
    if "active_streams" in commands:
        answer["active_streams"] = active_streams(state, commands["active_streams"])
    if "push_list" in commands:
        answer["push_list"] = push_list(state)
    if "capabilities" in commands:
        answer["capabilities"] = capabilities(state)
    if "version" in commands:
        answer["version"] = {"date": "Nov 20 2026", "release": "Generic_x86_64", "time": "11:25:56", "version": "3.10"}
    return answer


def _configure(state: State, commands: Mapping[str, Any], answer: Answer) -> None:
    controller = state.controller
    assert controller is not None
    if isinstance(commands.get("config"), dict):
        for name, value in commands["config"].items():
            if name == "triggers" and state.flavour == "fork" and (wrong := _wrong_onfail(value)):
                answer["error"] = wrong
            elif name not in ("iid", "time", "version", "controller"):
                controller.config[name] = deepcopy(value)
    if "bandwidth" in commands:
        wanted = commands["bandwidth"]
        if isinstance(wanted, dict) and "exceptions" in wanted:
            state.bandwidth = list(wanted["exceptions"] or PRIVATE)  # an empty list is refilled
        answer["bandwidth"] = {"exceptions": list(state.bandwidth)}
    _change_streams(state, commands, answer)
    state.streamkeys |= commands.get("streamkey_add") or {}
    if "save" in commands:
        crashes.save(state)
    if "config" in commands:
        answer["config"] = {
            **deepcopy(controller.config),
            "iid": controller.instance,
            "time": state.clock.unix,
            "version": f"{'3.10-fork' if state.flavour == 'fork' else '3.10'} Generic_x86_64",
        }


def _wrong_onfail(triggers: Any) -> str:
    for name, handlers in triggers.items():
        for handler in handlers if isinstance(handlers, list) else ():
            wanted = handler.get("onfail") if isinstance(handler, dict) else None
            if wanted and not (handler.get("sync") and name in ONFAIL.get(wanted, ())):
                return f"Invalid onfail action '{wanted}' for {name} trigger"
    return ""


def _change_streams(state: State, commands: Mapping[str, Any], answer: Answer) -> None:
    if "addstream" in commands:
        answer["streams"] = {"incomplete list": 1, **_add(state, commands["addstream"])}
    for name in _names(commands.get("deletestream")):
        if name in state.streams and state.fire("STREAM_REMOVE", name, stream=name).is_yes:
            del state.streams[name]
        answer["streams"] = {"incomplete list": 1}
    if commands.get("streams") is True:
        answer["streams"] = {name: {"name": name, "online": 0, **fields} for name, fields in state.streams.items()} or None


def _add(state: State, wanted: Mapping[str, Mapping[str, Any]]) -> Answer:
    touched: Answer = {}
    for name, given in wanted.items():
        if not name or name != name.lower() or " " in name or "/" in name:
            continue
        fields = {key: value for key, value in given.items() if key != "name"}
        if state.streams.get(name) != fields:
            trigger = "STREAM_CONFIG" if name in state.streams else "STREAM_ADD"
            if not state.fire(trigger, name, json.dumps(fields, separators=(",", ":")), stream=name).is_yes:
                continue
            state.streams[name] = deepcopy(dict(fields))
        touched[name] = {"name": name, **fields}
    return touched


def _act(state: State, commands: Mapping[str, Any]) -> None:
    for name in _names(commands.get("invalidate_sessions")):
        for session in state.sessions_of(name, "V"):
            state.later.append(lambda session=session: viewers.recheck(state, session))  # type: ignore[misc]
    for name in _names(commands.get("stop_sessions")):
        for session in state.sessions_of(name):
            state.later.append(lambda session=session: _stop_session(state, session))  # type: ignore[misc]
    for sessid in _names(commands.get("stop_sessid")):
        for session in [s for s in state.sessions if s.sessid == sessid and not s.is_gone]:
            state.later.append(lambda session=session: _stop_session(state, session))  # type: ignore[misc]
    for name in _names(commands.get("nuke_stream")):
        state.later.append(lambda name=name: crashes.nuke(state, name))  # type: ignore[misc]
    wanted = commands.get("push_start")
    if wanted:
        stream, target = wanted if isinstance(wanted, list) else (wanted["stream"], wanted["target"])
        pushes.start(state, stream, target)
    if "push_stop" in commands:
        stopped = commands["push_stop"]
        state.later.append(lambda: pushes.stop(state, stopped))


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _stop_session(state: State, session: Session) -> None:
    """The session ends at once, and with it what it is of. A player that goes on gets a new one."""
    if session.is_gone:
        return
    if session.kind == "I":
        session.is_gone = True
        for connection in [c for c in state.publishers.values() if c.session is session]:
            publishers.leave(state, connection, "CLEAN_INTENDED_STOP", "shutdown due to session end")
    elif session.kind == "O":
        session.is_gone = True
        for push in [p for p in state.pushes if p.session is session]:
            pushes.finish(state, push, "CLEAN_INTENDED_STOP", "shutdown due to session end")
    else:
        viewers.end_session(state, session)


def clients(state: State, asked: Any) -> Answer:
    """The sessions of one second: those whose statistics began before it and go on to it."""
    controller, asked = state.controller, asked if isinstance(asked, dict) else {}
    assert controller is not None
    boot, time = state.clock.boot_seconds, int(asked.get("time", 0))
    moment = boot - 600 if time == 0 else boot + time if time < 0 else time - (state.clock.unix - boot)
    rows: list[list[Any]] = []
    for entries in controller.log.values():
        known = [entry for entry in entries if entry[0] <= moment]
        if not known or entries[-1][0] < moment:
            continue
        _, session, seconds, up, down = known[-1]
        stream = session.stream
        if asked.get("streams") and stream not in asked["streams"]:
            continue
        rate = (session.down_rate, session.up_rate) if session.connections else (0, 0)
        rows.append([session.host, stream, session.protocol, seconds, seconds, down, up, *rate, session.sessid, 0, 0, 0])
    fields = [f for f in CLIENT_FIELDS if f in asked.get("fields", CLIENT_FIELDS)]
    chosen = [[row[CLIENT_FIELDS.index(f)] for f in fields] for row in rows]
    return {"data": chosen or None, "fields": fields, "time": moment + state.clock.unix - boot}


def active_streams(state: State, asked: Any) -> Any:
    """Streams with any session of the last 15 seconds."""
    controller, boot = state.controller, state.clock.boot_seconds
    assert controller is not None
    recent = {e[-1][1].stream for e in controller.log.values() if e[-1][0] >= boot - STATS_DELAY} | set(state.buffers)
    found = {name: _stream(state, name) for name in sorted(recent) if name}
    if not isinstance(asked, dict):
        return list(found) or None
    fields = asked.get("fields") or list(next(iter(found.values()), {}))
    return {name: {field: row.get(field) for field in fields} for name, row in found.items()} or None


def _stream(state: State, name: str) -> Answer:
    controller, boot = state.controller, state.clock.boot_seconds
    assert controller is not None

    def count(kind: str, seconds_ago: int) -> int:
        logs = [e for e in controller.log.values() if e[-1][1].stream == name and e[-1][1].kind == kind]
        return sum(e[0][0] <= boot - seconds_ago <= e[-1][0] + STATS_DELAY for e in logs)

    buffer, sources = state.buffers.get(name), publishers.publishers_of(state, name)
    fetched = state.fetched.get(name)
    pids = sorted([c.pid for c in sources] + ([fetched.pid + 1] if fetched else []))
    status = "Offline" if buffer is None or buffer.is_dead else "Online" if pids else "Waiting for data"
    return {
        "status": status,
        "viewers": count("", STATS_DELAY),
        "inputs": count("I", 2),
        "outputs": count("O", STATS_DELAY),
        "lastms": buffer.media_ms if buffer else 0,
        "sourcepids": pids if buffer else None,
        "upbytes": 0,
        "downbytes": 0,
        "tags": None,
    }


def push_list(state: State) -> Any:
    known = state.controller.pushes if state.controller else []
    running = [p for p in state.pushes if p.pid in known]
    rows: list[list[Any]] = [[p.pid, p.stream, p.target, p.target_used, [], pushes.status(state, p)] for p in running]
    return rows or None


def capabilities(state: State) -> Answer:
    names = (*STOCK_TRIGGERS, *sorted(FORK_ONLY)) if state.flavour == "fork" else STOCK_TRIGGERS
    return {
        "connectors": {"HTTP": {}, "RTMP": {}, "HLS": {}},
        "inputs": {"Buffer": {}, "DTSC": {}},
        "processes": {"Livepeer": {}},
        "threads": 2,
        "triggers": {name: {"payload": "", "response": "always", "stream_specific": True, "when": ""} for name in names},
    }


def load(state: State) -> Answer:
    """`<prometheus>.json`."""
    kinds = [sum(not s.is_gone and s.kind == kind for s in state.sessions) for kind in ("", "I", "O")]
    return {
        "bw": [sum(s.up for s in state.sessions), sum(s.down for s in state.sessions)],
        "bwlimit": 134217728,
        "conf_streams": sorted(state.streams),
        "cpu": 72,
        "curr": [*kinds, 0, len(state.sessions)],
        "mem_total": 24683520,
        "mem_used": 544768,
        "shm_total": 12341248,
        "shm_used": 3072,
        "streams": {},
        "tot": [*kinds, 0],
    }
