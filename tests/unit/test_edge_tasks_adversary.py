"""Whatever happens to the media server, the agent and what is wanted: in the end that runs, and nothing else of ours."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mist.state import Connection
from tests.task_node import LIVE, ONE, TWO, URL, TaskNode, push, recording

THREE = UUID(int=3)
URLS = {ONE: URL, TWO: "srt://b.example.org:9000?streamid=secret2"}
OPERATORS = "rtmp://else.example.org/app/operators"
QUIET_SECONDS = 150  # a pause of a minute, and what the looks of before have to settle


class Adversary:
    def __init__(self, flavour: str) -> None:
        self.node = TaskNode(flavour=flavour)  # type: ignore[arg-type]
        self.wanted: frozenset[UUID] = frozenset()
        self.requests = 100

    def publisher(self) -> Connection | None:
        return next(iter(self.node.mist.state.publishers.values()), None)

    def publish(self) -> None:
        if self.publisher() is None:
            self.node.mist.publish("sk_abcd2345_0123456789abcdefghijkl")

    def unpublish(self, how: str) -> None:
        if (publisher := self.publisher()) is not None:
            self.node.mist.unpublish(publisher, how)  # type: ignore[arg-type]

    def want(self, wanted: frozenset[UUID]) -> None:
        self.requests += 10
        self.wanted = wanted
        pushes = [push(target_id, self.requests + target_id.int) for target_id in sorted(wanted & URLS.keys())]
        recordings = [recording(THREE, "ts", self.requests)] if THREE in wanted else []
        self.node.want(*pushes, recordings=recordings, urls=URLS)

    def end_some(self, *, is_killed: bool, is_heard: bool) -> None:
        if not is_heard:
            self.lose(is_lost=True)
        for running in [p for p in self.node.mist.state.pushes if p.is_running and p.target != OPERATORS][:1]:
            if is_killed:
                self.node.mist.kill_push(running)
            else:
                self.node.end_push_of(running, "FORMAT_SPECIFIC", "connection refused")

    def operator(self) -> None:
        self.node.mist.call({"push_start": [LIVE, OPERATORS]})

    def lose(self, *, is_lost: bool) -> None:
        names = ("PUSH_END", "OUTPUT_END", "STREAM_BUFFER", "CONN_CLOSE") if is_lost else ()
        self.node.wire.fault = lambda post: "lost" if post.name in names else ""

    def crash(self) -> None:
        self.node.mist.kill_everything()
        self.node.mist.start()

    def settle(self) -> None:
        self.lose(is_lost=False)
        self.node.api.is_up = True
        self.node.advance(QUIET_SECONDS)

    def check(self) -> None:
        node, is_live = self.node, LIVE in self.node.mist.publishing()
        ours = sorted(target for _, target in node.mist.pushing() if target != OPERATORS)
        wanted = sorted(URLS.get(w, f"/rec/$stream-$datetime-{w}.ts") for w in self.wanted) if is_live else []
        assert ours == wanted
        for target_id in (ONE, TWO, THREE):
            if target_id in self.wanted and is_live:
                assert node.story(target_id)[-1] == "ACTIVE"
            else:
                assert node.story(target_id)[-1:] in ([], ["STOPPED"], ["WAITING"])
        operators = {p.pid for p in node.mist.state.pushes if p.target == OPERATORS}
        assert not operators & {c["push_stop"] for c in node.api.asked if "push_stop" in c}


Act = Callable[[Adversary], None]
ACTS: st.SearchStrategy[Act] = st.one_of(
    st.just(Adversary.publish),
    st.sampled_from(["stop", "close", "kill"]).map(lambda how: lambda a: a.unpublish(how)),
    st.frozensets(st.sampled_from([ONE, TWO, THREE])).map(lambda wanted: lambda a: a.want(wanted)),
    st.tuples(st.booleans(), st.booleans()).map(lambda how: lambda a: a.end_some(is_killed=how[0], is_heard=how[1])),
    st.just(Adversary.operator),
    st.booleans().map(lambda is_lost: lambda a: a.lose(is_lost=is_lost)),
    st.just(lambda a: a.node.kill_agent()),
    st.just(lambda a: a.node.mist.kill_controller()),
    st.just(Adversary.crash),
    st.booleans().map(lambda is_up: lambda a: setattr(a.node.api, "is_up", is_up)),
    st.integers(1, 40).map(lambda seconds: lambda a: a.node.advance(seconds)),
    st.integers(1, 40).map(lambda seconds: lambda a: a.node.advance(seconds)),
)  # fmt: skip


@settings(max_examples=40)
@given(st.sampled_from(["stock", "fork"]), st.lists(ACTS, min_size=5, max_size=30))
def test_what_is_wanted_runs_in_the_end(flavour: str, acts: list[Act]) -> None:
    adversary = Adversary(flavour)
    adversary.publish()
    adversary.want(frozenset({ONE, THREE}))
    adversary.node.advance(10)
    for act in acts:
        act(adversary)
        adversary.node.advance(1)
    adversary.settle()
    adversary.check()
