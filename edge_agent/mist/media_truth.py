"""The same comparison for publishers, pushes and what is on the air.

A publisher is there while the media server names its process as a source of its stream, or while a session of a publisher of that
stream has a connection: after a crash of the buffer only the second holds, and before statistics are in only the first. Where
neither holds any more, its process may still be seen to run: then it goes on, but stands in nobody's way who comes after it.
What fetches a stream from another node is an input, too, and no publisher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from edge_agent import broadcasts, ingests, pushes, relays
from edge_agent.bodies import PushOutStart
from edge_agent.mist.active_streams import ActiveStream
from edge_agent.mist.clients import Client
from edge_agent.mist.presence import KEEP_MS, Presence
from edge_agent.mist.push_list import PushStatus, RunningPush
from edge_agent.mist.sight import Sight
from edge_agent.node_state import Figures, Ingest, Push
from edge_agent.policy import LIVE
from edge_agent.redact import digest
from edge_agent.turn import Turn
from streams.generated import StreamPolicy

NOWHERE = ActiveStream()


@dataclass(slots=True)
class Counts:
    lost: int = 0
    found: int = 0


def compare(turn: Turn, sight: Sight, presence: Presence, watched: set[str], strange: set[str]) -> Counts:
    counts = Counts()
    sight = replace(sight, inputs={name: _publishers(turn, name, rows) for name, rows in sight.inputs.items()})
    _ingests(turn, sight, presence, watched, counts)
    _strange_ingests(turn, sight, presence, strange, counts)
    _pushes(turn, sight, presence, watched, strange, counts)
    _broadcasts(turn, sight, presence, watched, strange)
    _relays(turn, sight, presence, watched)
    return counts


# Publishers.


def _publishers(turn: Turn, name: str, rows: Sequence[Client]) -> list[Client]:
    """Sessions of inputs that publish. Over DTSC only who was admitted does: nobody else is let in by it."""
    stream = turn.policy.by_media_name(name)
    admitted = {i.protocol for _, i in turn.state.open_ingests(stream.stream_id)} if stream else frozenset[str]()
    return [row for row in rows if (by := row.protocol.rpartition(":")[2]) not in relays.FETCHING or by in admitted]


def _ingests(turn: Turn, sight: Sight, presence: Presence, watched: set[str], counts: Counts) -> None:
    spare = {name: len(_connected(sight, presence, name, watched)) for name in sight.inputs}
    still_open = [(pid, ingest) for pid, ingest in turn.state.ingests.items() if ingest.concluded_ms is None]
    unproven = []
    for pid, ingest in still_open:
        if pid in _sources(sight, ingest.internal_name):
            name = f"{LIVE}{ingest.internal_name}"
            spare[name] = spare.get(name, 0) - 1
            _ingest_seen(turn, sight, presence, watched, pid, ingest, is_source=True)
        else:
            unproven.append((pid, ingest))
    for pid, ingest in unproven:
        name = f"{LIVE}{ingest.internal_name}"
        if spare.get(name, 0) > 0:
            spare[name] -= 1
            _ingest_seen(turn, sight, presence, watched, pid, ingest, is_source=False)
            continue
        if pid in sight.living:  # the statistics lost it, as when its session process was killed
            _ingest_seen(turn, sight, presence, watched, pid, ingest, is_source=False)
            continue
        key = ingest.watch_key
        watched.add(key)
        if watch := presence.missed(key, sight.elapsed_ms):
            seconds = (sight.elapsed_ms - watch.seen_ms) // 1000
            status = sight.streams.get(name, NOWHERE).status or "not active"
            figures = watch.figures or ingest.last
            seen_at_ms = watch.seen_at_ms or (figures.seen_ms if figures else None)
            seen = f"last seen {Turn.moment(seen_at_ms):%Y-%m-%dT%H:%M:%SZ}" if seen_at_ms else "never seen"
            evidence = f"no source and no session of a publisher for {seconds} s, the stream is {status}; {seen}"
            at_ms = max(ingest.started_ms, seen_at_ms or 0)
            about = turn.about(key, at_ms=min(at_ms, turn.now_ms))
            ingests.conclude(about, pid, ingest, figures=figures, evidence=evidence)
            counts.lost += 1


def _ingest_seen(
    turn: Turn, sight: Sight, presence: Presence, watched: set[str], pid: str, ingest: Ingest, *, is_source: bool
) -> None:
    key = ingest.watch_key
    watched.add(key)
    was_seen = presence.last_of(key) is not None
    rows = sight.inputs.get(f"{LIVE}{ingest.internal_name}", [])
    watch = presence.seen(key, sight.elapsed_ms, sight.at_ms, known=_input_figures(rows, sight))
    if is_source and ingest.is_lost and was_seen:  # as after a crash of the controller alone
        ingest = replace(ingest, is_lost=False)
        turn.state.ingests.put(pid, ingest)
    if watch.figures and (ingest.last is None or sight.elapsed_ms - watch.kept_ms >= KEEP_MS):
        watch.kept_ms = sight.elapsed_ms
        turn.state.ingests.put(pid, replace(ingest, last=watch.figures))


def _input_figures(rows: Sequence[Client], sight: Sight) -> Figures | None:
    return Figures(rows[0].conntime, rows[0].up, rows[0].down, sight.at_ms) if len(rows) == 1 else None


def _sources(sight: Sight, internal_name: str) -> set[str]:
    """Processes that feed the stream's buffer. One that is offline has none: what its shared memory says is of before."""
    stream = sight.streams.get(f"{LIVE}{internal_name}", NOWHERE)
    return set(map(str, stream.sourcepids or ())) if stream.status != "Offline" else set()


def _connected(sight: Sight, presence: Presence, name: str, watched: set[str]) -> list[Client]:
    """Sessions of publishers that had a connection since the last look: in one that waits its seconds stand still. What is left
    of one that died with the server is listed once more by the next, with fewer."""
    found = []
    for client in sight.inputs.get(name, ()):
        key = f"input {client.sessid}"
        watched.add(key)
        last = presence.last_of(key)
        presence.seen(key, sight.elapsed_ms, sight.at_ms, client)
        if last is None or last.before_seconds is None or client.conntime > last.before_seconds:
            found.append(client)
    return found


def _strange_ingests(turn: Turn, sight: Sight, presence: Presence, strange: set[str], counts: Counts) -> None:
    for name, rows in sight.inputs.items():
        stream = turn.policy.by_media_name(name)
        if stream is None:
            continue
        sources = _sources(sight, stream.internal_name)
        known = {pid for pid, _ in turn.state.open_ingests(stream.stream_id)}
        unknown = sources - known
        if (not unknown and (known or sources)) or ingests.just_ended(turn, stream):
            continue
        newest_first = sorted(rows, key=lambda client: client.conntime)
        for client in newest_first[: len(rows) - len(known & sources)]:
            key = f"publisher {client.sessid}"
            strange.add(key)
            there = presence.strange(key, sight.elapsed_ms, client.conntime, is_steady=True)
            if there is None:
                continue
            pid = next(iter(sorted(unknown)), f"session {client.sessid[:16]}")
            unknown.discard(pid)
            concluded = turn.state.ingests.get(pid)
            if concluded and concluded.subject.aggregate_id == stream.stream_id:
                turn.state.ingests.put(pid, replace(concluded, concluded_ms=None, is_lost=False))
            else:
                seconds = (sight.elapsed_ms - there.first_ms) // 1000
                evidence = f"listed in clients for {seconds} s, connected for {client.conntime} s; no STREAM_PUSH was heard"
                started_ms = turn.now_ms - 1000 * client.conntime
                about = turn.about(f"{key} {pid}", at_ms=started_ms)
                ingests.appear(about, pid, stream, client.protocol.rpartition(":")[2], client.host, evidence)
            counts.found += 1


# Pushes.


def _pushes(turn: Turn, sight: Sight, presence: Presence, watched: set[str], strange: set[str], counts: Counts) -> None:
    waiting = list(sight.pushes)
    still_open = [push for push in turn.state.pushes if push.concluded_ms is None]
    for push in still_open:
        key = f"push {push.push_id}"
        watched.add(key)
        running = _running(push, waiting)
        if running:
            waiting.remove(running)
            watch = presence.seen(key, sight.elapsed_ms, sight.at_ms)
            watch.status = running.status or watch.status
        elif watch_gone := presence.missed(key, sight.elapsed_ms):
            seconds = (sight.elapsed_ms - watch_gone.seen_ms) // 1000
            evidence = f"not in push_list for {seconds} s"
            about = turn.about(key, at_ms=min(max(push.started_ms, watch_gone.seen_at_ms or 0), turn.now_ms))
            status = watch_gone.status if isinstance(watch_gone.status, PushStatus) else None
            pushes.conclude(about, push, "the media server no longer lists it", status=status, evidence=evidence)
            counts.lost += 1
    for running in waiting:
        _meet_push(turn, sight, presence, strange, running, counts)


def _running(push: Push, waiting: Sequence[RunningPush]) -> RunningPush | None:
    alike = [r for r in waiting if r.stream == push.stream and digest(r.target) == push.target_digest]
    return next((r for r in alike if r.pid == push.pid), alike[0] if alike else None)


def _meet_push(turn: Turn, sight: Sight, presence: Presence, strange: set[str], running: RunningPush, counts: Counts) -> None:
    stream = turn.policy.by_media_name(running.stream)
    if stream is None:
        return
    key = f"running {running.pid}"
    strange.add(key)
    there = presence.strange(
        key, sight.elapsed_ms, sight.elapsed_ms // 1000, is_steady=True
    )  # its own clock lags by five seconds
    if there is None:
        return
    wanted = digest(running.target)
    alike = [p for p in turn.state.pushes if p.stream == running.stream and p.target_digest == wanted and p.pid == running.pid]
    if alike:
        turn.state.pushes.put(str(alike[-1].push_id), replace(alike[-1], concluded_ms=None))
    else:
        seconds = (sight.elapsed_ms - there.first_ms) // 1000
        active = running.status.active_seconds if running.status and running.status.active_seconds else seconds
        about = turn.about(key, pid=running.pid, at_ms=turn.now_ms - 1000 * active)
        evidence = f"in push_list for {seconds} s; no PUSH_OUT_START was heard"
        pushes.start(about, stream, PushOutStart(running.stream, running.target), pid=running.pid, evidence=evidence)
    counts.found += 1


# What is on the air.


def _broadcasts(turn: Turn, sight: Sight, presence: Presence, watched: set[str], strange: set[str]) -> None:
    for key, broadcast in turn.state.broadcasts.items():
        stream = turn.policy.stream(UUID(key))
        if stream is None or not broadcast.is_live:
            continue
        name, watch_key = f"{LIVE}{stream.internal_name}", f"broadcast {key}"
        watched.add(watch_key)
        is_online = sight.streams.get(name, NOWHERE).is_online and not relays.is_relayed(turn, stream)
        if is_online or turn.state.open_ingests(stream.stream_id):
            presence.seen(watch_key, sight.elapsed_ms, sight.at_ms)
        elif watch := presence.missed(watch_key, sight.elapsed_ms):
            seconds = (sight.elapsed_ms - watch.seen_ms) // 1000
            status = sight.streams.get(name, NOWHERE).status or "not active"
            broadcasts.go_offline(turn.about(watch_key), stream, evidence=f"{status} for {seconds} s")
    for name, active in sight.streams.items():
        stream = turn.policy.by_media_name(name) if active.is_online else None
        if stream is None or _is_told(turn, stream):
            continue
        key = f"on air {name}"
        strange.add(key)
        if there := presence.strange(key, sight.elapsed_ms, sight.elapsed_ms // 1000, is_steady=True):
            evidence = f"{active.status} for {(sight.elapsed_ms - there.first_ms) // 1000} s"
            if relays.is_relayed(turn, stream):
                relays.started(turn.about(key), stream, evidence)
                continue
            broadcasts.go_live(turn.about(key), stream, evidence=evidence)


def _is_told(turn: Turn, stream: StreamPolicy) -> bool:
    """Whether it was told already that what is online here is on the air, or relayed."""
    key = str(stream.stream_id)
    if relays.is_relayed(turn, stream):
        relay = turn.state.relays.get(key)
        return relay is not None and relay.is_running
    known = turn.state.broadcasts.get(key)
    return known is not None and known.is_live


def _relays(turn: Turn, sight: Sight, presence: Presence, watched: set[str]) -> None:
    for key, relay in turn.state.relays.items():
        stream = turn.policy.stream(UUID(key)) if relay.is_running else None
        if stream is None:
            continue
        name, watch_key = f"{LIVE}{stream.internal_name}", f"relay {key}"
        watched.add(watch_key)
        active = sight.streams.get(name, NOWHERE)
        if active.is_online and relays.is_relayed(turn, stream):
            presence.seen(watch_key, sight.elapsed_ms, sight.at_ms)
        elif watch := presence.missed(watch_key, sight.elapsed_ms):
            seconds = (sight.elapsed_ms - watch.seen_ms) // 1000
            relays.stopped(turn.about(watch_key), stream, f"{active.status or 'not active'} for {seconds} s")
