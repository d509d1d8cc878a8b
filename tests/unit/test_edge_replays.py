"""Recordings with every second request lost, doubled or delayed give the sessions that there were, for the API tells the rest.

What the API would have listed at each moment is taken from the whole recording: who joined and left, published and pushed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest

from edge_agent.mist.active_streams import ActiveStream
from edge_agent.mist.clients import Client
from edge_agent.mist.push_list import RunningPush
from edge_agent.mist.sight import Sight
from edge_agent.mist.truth import Truth
from edge_agent.trigger import Trigger
from infra.recordings import RecordedTrigger, names, read
from infra.recordings.replay import Translation, recorded_key
from streams.generated import IngestEnded, IngestStarted, ViewerJoined, ViewerLeft
from tests.edge_node import KEY, AgentUnderTest

LOOK_MS = 3000
TAIL_MS = 15_000  # a session of a publisher goes on for so long
DELAY_MS = 3000
FOUND_MS = 20_000
Disturb = Callable[[Sequence[RecordedTrigger]], Iterator[tuple[float, RecordedTrigger]]]


def whole(recorded: Sequence[RecordedTrigger]) -> Iterator[tuple[float, RecordedTrigger]]:
    yield from ((t.at_seconds, t) for t in recorded)


def lost(recorded: Sequence[RecordedTrigger]) -> Iterator[tuple[float, RecordedTrigger]]:
    yield from ((t.at_seconds, t) for n, t in enumerate(recorded) if n % 2 == 0)


def other_half_lost(recorded: Sequence[RecordedTrigger]) -> Iterator[tuple[float, RecordedTrigger]]:
    yield from ((t.at_seconds, t) for n, t in enumerate(recorded) if n % 2)


def doubled(recorded: Sequence[RecordedTrigger]) -> Iterator[tuple[float, RecordedTrigger]]:
    for n, trigger in enumerate(recorded):
        yield from [(trigger.at_seconds, trigger)] * (1 + n % 2)


def delayed(recorded: Sequence[RecordedTrigger]) -> Iterator[tuple[float, RecordedTrigger]]:
    late = [(t.at_seconds + (DELAY_MS / 1000 if n % 2 else 0), t) for n, t in enumerate(recorded)]
    yield from sorted(late, key=lambda entry: entry[0])


@dataclass
class Told:
    """What really happened, by the whole recording and its recorded answers."""

    sessions: list[tuple[str, str, int, int, int]] = field(default_factory=list)  # id, stream, from, to (ms), seconds
    publishers: list[tuple[int, str, int, int]] = field(default_factory=list)  # pid, stream, from, to
    pushes: list[tuple[int, str, str, int, int]] = field(default_factory=list)  # pid, stream, target, from, to

    @classmethod
    def of(cls, recorded: Sequence[RecordedTrigger]) -> Told:
        told, began, published, started = cls(), {}, {}, []
        for t in recorded:
            at, lines = round(1000 * t.at_seconds), t.body.split("\n")
            match t.name:
                case "USER_NEW" if t.answer == "true":
                    began[t.pid] = at
                case "USER_END" if t.pid in began:
                    told.sessions.append((lines[-1], lines[1], began.pop(t.pid), at, int(lines[4])))
                case "STREAM_PUSH" if t.answer == "true":
                    published[t.pid] = (lines[0], at)
                case "OUTPUT_END" if t.pid in published and not lines[1]:
                    stream, since = published.pop(t.pid)
                    told.publishers.append((int(t.pid), stream, since, at))
                case "PUSH_OUT_START":
                    started.append((lines[0], lines[1], at))
                case "PUSH_END":
                    mine = next(s for s in started if s[:2] == (lines[1], lines[2]))
                    started.remove(mine)
                    told.pushes.append((int(lines[0]), lines[1], lines[2], mine[2], at))
        return told

    def sight(self, at: int, began_ms: int, names_: Translation) -> Sight:
        """What the API lists: sessions of five seconds ago, the rest of now."""
        past, clients, streams = at - 5000, [], {}
        inputs: dict[str, list[Client]] = {}
        for sessid, stream, since, until, _ in self.sessions:
            if since <= past <= until:
                connected = (min(past, until - TAIL_MS) - since) // 1000
                seconds = max(0, connected)
                clients.append(client(sessid, names_.body(stream), "HLS", seconds))
        for pid, recorded_stream, since, until in self.publishers:
            stream = names_.body(recorded_stream)
            if since <= past <= until + TAIL_MS:
                row = client(f"I{pid}", stream, "INPUT:RTMP", (min(past, until) - since) // 1000)
                clients.append(row)
                inputs.setdefault(stream, []).append(row)
            if since <= at <= until:
                streams[stream] = ActiveStream(status="Online", sourcepids=(pid,))
        pushes = tuple(RunningPush(p, names_.body(s), t, t) for p, s, t, since, until in self.pushes if since <= at <= until)
        return Sight("InstanceA", tuple(clients), streams, pushes, at, began_ms + at, inputs=inputs)


def client(sessid: str, stream: str, protocol: str, seconds: int) -> Client:
    return Client("203.0.113.5", stream, protocol, seconds, 0, 200 * seconds, 52_000 * seconds, 0, 0, sessid, 0, 0, 0)


def played(recording: str, disturb: Disturb) -> tuple[AgentUnderTest, Told, Translation]:
    agent, truth, recorded = AgentUnderTest(), Truth(), read(recording)
    agent.agent.is_verified = True
    told, known = Told.of(recorded), Translation(recorded_key(recorded), KEY)
    known.streams = {t.answer: "live+lobby" for t in recorded if t.name == "PUSH_REWRITE" and t.answer.startswith("live+")}
    began, last_look = agent.now_ms, 0

    def look_until(ms: int) -> None:
        nonlocal last_look
        while last_look + LOOK_MS <= ms:
            last_look += LOOK_MS
            seen = told.sight(last_look, began, known)
            agent.now_ms = began + last_look
            look = f"look {last_look}"
            work = partial(truth.compare, sight=seen, gap_ms=30_000)
            agent.take(agent.agent.observe(work, agent.now_ms, uuid=look))

    for at_seconds, line in disturb(recorded):
        if line.name == "SYSTEM_STOP":
            continue
        look_until(round(1000 * at_seconds))
        agent.now_ms = began + round(1000 * at_seconds)
        headers = line.headers
        happened = began + round(1000 * line.at_seconds)
        agent.handle(
            Trigger(
                line.name,
                known.body(line.body).encode(),
                headers["X-Trigger-UUID"],
                headers.get("X-Instance", ""),
                int(headers["X-PID"]),
                happened,
            )
        )
    look_until(last_look + 120_000)
    return agent, told, known


RECORDINGS = [name for name in names() if not name.startswith("4-")]  # there the recorded server refused, and ours admits


@pytest.mark.parametrize("disturb", [whole, lost, other_half_lost, doubled, delayed])
@pytest.mark.parametrize("recording", RECORDINGS)
def test_the_sessions_are_those_that_there_were(recording: str, disturb: Disturb) -> None:
    agent, told, known = played(recording, disturb)
    ids = [meta.event_id for _, meta in agent.facts]
    assert len(ids) == len(set(ids))
    state = agent.agent.state
    assert not [v for v in state.viewings if v.is_open]
    assert not [i for i in state.ingests if i.concluded_ms is None]
    assert not [p for p in state.pushes if p.concluded_ms is None]
    ours = [s for s in told.sessions if known.body(s[1]).startswith("live+lobby")]
    ends = {f.viewing_id: f for f in agent.said(ViewerLeft) if isinstance(f, ViewerLeft)}  # the last word of each
    assert sorted(e.session_id for e in ends.values()) == sorted(s[0] for s in ours)
    seconds = {s[0]: s[4] for s in ours}
    for end in ends.values():
        slack = 0 if not end.synthesized else 9  # a look, and what it sees late
        assert abs(end.seconds - seconds[end.session_id]) <= slack
    joins = {f.viewing_id for f in agent.said(ViewerJoined) if isinstance(f, ViewerJoined)}
    assert joins <= ends.keys()
    publishers = [p for p in told.publishers if known.body(p[1]) == "live+lobby"]
    started = {f.ingest_id for f in agent.said(IngestStarted) if isinstance(f, IngestStarted)}
    ended = {f.ingest_id for f in agent.said(IngestEnded) if isinstance(f, IngestEnded)}
    assert started == ended
    found = [p for p in publishers if p[3] - p[2] > FOUND_MS]  # a shorter one, whose start was lost, nobody saw
    assert len(found) <= len(started) <= len(publishers)
