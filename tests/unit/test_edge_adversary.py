"""A generated media server: it repeats, forgets, crashes, restarts and re-uses process numbers, and so does the agent.

What it does is written from the contract (sections 4 to 6), not from the parsers. Whatever happens: nothing is open that is
closed, nothing is counted twice, and an agent that was killed in between says what an undisturbed one says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.trigger import Trigger
from streams.generated import IngestEnded, IngestStarted, ViewerJoined, ViewerLeft
from tests.edge_node import KEY, AgentUnderTest

Kind = Literal["join", "leave", "publish", "unpublish", "empty", "stream_end", "server_restart", "agent_restart", "resend"]


@dataclass(frozen=True)
class Step:
    kind: Kind
    who: int  # which viewer or publisher
    pid: int  # small numbers: they come again
    is_lost: bool  # the media server does it, but the agent never hears of it


STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(
            ["join", "leave", "publish", "unpublish", "empty", "stream_end", "server_restart", "agent_restart", "resend"]
        ),
        who=st.integers(0, 3),
        pid=st.integers(1, 6),
        is_lost=st.sampled_from([False, False, False, True]),
    ),
    max_size=60,
)
URL = f"rtmp://127.0.0.1/live/{KEY}"


class Server:
    """The media server: it knows who watches and publishes, and what it sent."""

    def __init__(self, agent: AgentUnderTest) -> None:
        self.agent = agent
        self.viewers: dict[int, int] = {}  # who: pid of the session process
        self.publisher: int | None = None
        self.sent: list[Trigger] = []
        self.number = 0

    def send(self, name: str, body: str, pid: int, *, is_lost: bool = False) -> str:
        self.number += 1
        self.agent.now_ms += 100
        trigger = Trigger(name, body.encode(), f"u{self.number}", "I", pid, self.agent.now_ms)
        if is_lost:
            return "true"
        self.sent.append(trigger)
        return self.agent.handle(trigger).answer

    def do(self, step: Step) -> None:
        session = f"{step.who:064x}"
        match step.kind:
            case "join" if step.who not in self.viewers and step.pid not in self.viewers.values():
                body = f"live+lobby\n127.0.1.{step.who}\n1\nHLS\nhttp://h/\n{session}\nfalse"
                if self.send("USER_NEW", body, step.pid) == "true":
                    self.viewers[step.who] = step.pid
            case "leave" if step.who in self.viewers:
                body = f"1\nlive+lobby\nHLS\n127.0.1.{step.who}\n14\n100\n20\n\n14\n14\n14\n{session}"
                self.send("USER_END", body, self.viewers.pop(step.who), is_lost=step.is_lost)
            case "publish" if self.publisher != step.pid:
                if self.send("PUSH_REWRITE", f"{URL}\n10.0.0.1\n{KEY}", step.pid) == "live+lobby":
                    self.send("STREAM_PUSH", f"live+lobby\n10.0.0.1\nRTMP\n{URL}", step.pid)
                    self.publisher = step.pid
                else:
                    self.send("CONN_CLOSE", f"{KEY}\n10.0.0.1\nRTMP\n{URL}", step.pid, is_lost=step.is_lost)
            case "unpublish" if self.publisher is not None:
                body = "live+lobby\n\nRTMP\n0\n3\n1\n4\n0\n0\n0\nCLEAN_REMOTE_CLOSE\nconnection closed\n"
                self.send("OUTPUT_END", body, self.publisher, is_lost=step.is_lost)
                self.publisher = None
                self.send("STREAM_BUFFER", "live+lobby\nEMPTY", 50, is_lost=step.is_lost)
            case "stream_end" if not self.viewers and self.publisher is None:
                self.send("STREAM_END", "live+lobby\n0\n0\n0\n0\n0\n0", 60, is_lost=step.is_lost)
            case "server_restart":
                self.viewers, self.publisher = {}, None  # nobody's end is said (section 5)
                self.send("SYSTEM_START", "3.10", 60)
            case "resend" if self.sent:
                self.agent.handle(self.sent[-1 - step.who % len(self.sent)])
            case _:
                pass


def run(steps: list[Step], *, agent_dies: bool) -> AgentUnderTest:
    agent = AgentUnderTest()
    server = Server(agent)
    for step in steps:
        if step.kind == "agent_restart" and agent_dies:
            known = agent.agent._answers
            agent.restart()
            agent.agent._answers.update(known)  # they are on the disk, too
        server.do(step)
    server.send("SYSTEM_START", "3.10", 60)
    return agent


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_nothing_is_open_that_is_closed_and_nothing_counted_twice(steps: list[Step]) -> None:
    agent = run(steps, agent_dies=True)
    ids = [meta.event_id for _, meta in agent.facts]
    assert len(ids) == len(set(ids))
    joined = {f.viewing_id for f in agent.said() if isinstance(f, ViewerJoined)}
    real = Counter(f.viewing_id for f in agent.said() if isinstance(f, ViewerLeft) and not f.synthesized)
    concluded = Counter(f.viewing_id for f in agent.said() if isinstance(f, ViewerLeft) and f.synthesized)
    assert set(real.values()) | set(concluded.values()) <= {1}
    assert joined == set(real) | set(concluded)
    started = {f.ingest_id for f in agent.said() if isinstance(f, IngestStarted)}
    ended = Counter(f.ingest_id for f in agent.said() if isinstance(f, IngestEnded) and not f.synthesized)
    lost = Counter(f.ingest_id for f in agent.said() if isinstance(f, IngestEnded) and f.synthesized)
    assert set(ended.values()) | set(lost.values()) <= {1}
    assert started == set(ended) | set(lost)
    state = agent.agent.state
    assert all(v.concluded_ms is not None for v in state.viewings)
    assert all(i.concluded_ms is not None for i in state.ingests)
    assert not [*state.admissions, *state.refusals]


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_an_agent_that_was_killed_says_what_an_undisturbed_one_says(steps: list[Step]) -> None:
    assert run(steps, agent_dies=True).told() == run(steps, agent_dies=False).told()


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_server_that_forgets_nothing_needs_no_conclusions(steps: list[Step]) -> None:
    honest = [Step(s.kind, s.who, s.pid, False) for s in steps if s.kind != "server_restart"]
    agent = run(honest, agent_dies=True)
    last = agent.facts[-1][1].occurred_at  # the restart at the very end concludes who is still there
    early = [f for f, m in agent.facts if m.occurred_at < last and isinstance(f, ViewerLeft | IngestEnded) and f.synthesized]
    assert early == []
