"""A generated media server against the real agent core: publish, watch, push, kill, restart, drop, double, delay, for days.

Whatever happens, once it is quiet: nothing is open here that is closed there, nothing is closed here that is open there,
nothing was counted twice, and every viewing, publishing and push ended once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.generated import Fact, IngestEnded, ViewerLeft
from tests.edge_node import KEY
from tests.mist.direct import Node
from tests.mist.state import Connection

STREAM = "live+lobby"
QUIET_SECONDS = 120  # two crashes' worth of waiting: 15 s of MistServer, 45 s of ours, looks every 3 s
FAULTS = ("", "", "", "lost", "twice", "late", "unheard")
WHO = st.integers(0, 3)
LOSABLE: tuple[tuple[str, ...], ...] = (
    (),
    ("USER_END",),
    ("USER_NEW",),
    ("OUTPUT_END", "PUSH_INPUT_CLOSE"),
    ("SYSTEM_START",),
    ("PUSH_END",),
)


class Adversary(RuleBasedStateMachine):
    """`watching` and `publisher` are the people; what the server makes of them is the server's affair."""

    @initialize(flavour=st.sampled_from(["stock", "fork"]), seed=st.integers(0, 1000), is_listing_parked=st.booleans())
    def begin(self, flavour: str, seed: int, is_listing_parked: bool) -> None:
        self.node = Node(flavour=flavour, seed=seed)  # type: ignore[arg-type]
        self.node.mist.state.is_listing_parked = is_listing_parked
        self.node.mist.state.jwts.add("a.b.c")
        self.node.mist.call({"streamkey_add": {"KEY-ABC": STREAM}})
        self.watching: dict[int, Connection] = {}
        self.publisher: Connection | None = None
        self.dice = self.node.mist.state.dice

    # People.

    @precondition(lambda self: self.publisher is None or not self.publisher.is_open)
    @rule(is_own_key=st.sampled_from([False, False, False, True]))
    def publish(self, is_own_key: bool) -> None:
        connection = self.node.mist.publish("KEY-ABC" if is_own_key else KEY)
        self.publisher = None if connection.refusal else connection

    @precondition(lambda self: self.publisher is not None)
    @rule(how=st.sampled_from(["stop", "close", "kill"]))
    def unpublish(self, how: str) -> None:
        if self.publisher:
            self.node.mist.unpublish(self.publisher, how)  # type: ignore[arg-type]
        self.publisher = None

    @precondition(lambda self: self.publisher is None or not self.publisher.is_open)
    @rule(seconds=st.integers(1, 10))
    def publish_briefly(self, seconds: int) -> None:
        """By a key of the server's own, of which no trigger tells: gone before it could be found, and listed for a while yet."""
        connection = self.node.mist.publish("KEY-ABC")
        self.node.advance(seconds)
        if connection.refusal is None:
            self.node.mist.unpublish(connection, "close")
        self.node.advance(30 - seconds)

    @rule(who=WHO, is_trusted=st.sampled_from([False, False, True]))
    def watch(self, who: int, is_trusted: bool) -> None:
        if who not in self.watching:
            jwt = "a.b.c" if is_trusted else None
            connection = self.node.mist.watch(STREAM, f"203.0.113.{who}", token=f"t{who}", jwt=jwt)
            if connection.refusal is None:
                self.watching[who] = connection

    @rule(who=WHO)
    def leave(self, who: int) -> None:
        if connection := self.watching.pop(who, None):
            self.node.mist.leave(connection)

    @rule(place=st.sampled_from(["/rec/a.mkv", "/rec/$stream-$datetime.ts", "rtmp://example.org/live/k"]))
    def push(self, place: str) -> None:
        self.node.mist.call({"push_start": [STREAM, place]})

    @rule()
    def stop_pushing(self) -> None:
        self.node.mist.call({"push_stop": STREAM})

    # Faults of the way between.

    @rule(names=st.sampled_from(LOSABLE), everything=st.sampled_from([False, False, True]), faults=st.sampled_from(FAULTS))
    def fault(self, names: tuple[str, ...], everything: bool, faults: str) -> None:
        if everything:
            self.node.wire.fault = lambda _post: self.dice.choice(FAULTS)
        else:
            self.node.wire.fault = lambda post: faults if post.name in names else ""

    @rule()
    def mend(self) -> None:
        self.node.wire.fault = lambda _post: ""

    @rule()
    def kill_agent(self) -> None:
        self.node.kill_agent()

    @rule(seconds=st.integers(1, 90))
    def cut_off(self, seconds: int) -> None:
        self.node.wire.is_up = False
        self.node.advance(seconds)
        self.node.wire.is_up = True
        self.node.kill_agent()

    @rule(seconds=st.sampled_from([-86_400, -7, 7, 3600]))
    def jump(self, seconds: int) -> None:
        self.node.mist.clock.jump(seconds)

    # Faults of the server.

    @rule(with_guard=st.sampled_from([False, False, True]))
    def kill_controller(self, with_guard: bool) -> None:
        self.node.mist.kill_controller(with_guard=with_guard)
        if with_guard:
            self.node.advance(5)
            self.node.mist.start()

    @rule()
    def restart(self) -> None:
        self._everybody_is_gone(self.node.mist.stop())

    @rule()
    def kill_everything(self) -> None:
        self.node.mist.kill_everything()
        self._everybody_is_gone(True)

    def _everybody_is_gone(self, is_down: bool) -> None:
        if is_down:
            self.watching, self.publisher = {}, None
            self.node.advance(2)
            self.node.mist.start()

    @rule(who=WHO)
    def kill_session(self, who: int) -> None:
        """Its viewer is not counted any more, by nobody, until it connects again."""
        if connection := self.watching.pop(who, None):
            self.node.mist.kill_session(connection)

    @rule(is_production=st.booleans())
    def kill_buffer(self, is_production: bool) -> None:
        self.node.mist.kill_buffer(STREAM, is_production=is_production)
        if is_production:
            self.publisher = None

    @rule()
    def kill_push(self) -> None:
        if self.node.mist.state.pushes:
            self.node.mist.kill_push(self.node.mist.state.pushes[0])

    @rule(command=st.sampled_from(["invalidate_sessions", "stop_sessions", "nuke_stream"]))
    def stop_call(self, command: str) -> None:
        self.node.mist.call({command: STREAM})
        if command == "stop_sessions":
            self.watching = {}
        if command != "invalidate_sessions":
            self.publisher = None

    @rule(seconds=st.sampled_from([1, 5, 16, 40, 130]))
    def wait(self, seconds: int) -> None:
        self.node.advance(seconds)

    # What must hold.

    @invariant()
    def every_event_is_said_once(self) -> None:
        if hasattr(self, "node"):
            ids = [meta.event_id for _, meta in self.node.agent.facts]
            assert len(ids) == len(set(ids))

    @rule()
    def agree(self) -> None:
        """It is quiet for a while: then both sides have the same open, and no other."""
        node = self.node
        node.wire.fault = lambda _post: ""
        node.wire.deliver(0, everything=True)
        node.advance(QUIET_SECONDS)
        assert dict(node.open_sessions()) == dict.fromkeys(node.mist.viewings(), 1)
        assert dict(node.open_publishers()) == node.mist.publishing()
        assert sorted(node.open_pushes()) == sorted(stream for stream, _ in node.mist.pushing())

    def teardown(self) -> None:
        if not hasattr(self, "node"):
            return
        self.agree()
        self.node.mist.kill_everything()
        self.node.mist.start()
        self.node.advance(QUIET_SECONDS)
        node = self.node
        assert not node.open_sessions()
        assert not node.open_publishers()
        assert not node.open_pushes()
        for ends in node.left().values():
            assert sum(not end.synthesized for end in ends) <= 1
        self._ended_once(node.joined().keys(), node.agent.said(ViewerLeft), "viewing_id")
        self._ended_once(node.started().keys(), node.agent.said(IngestEnded), "ingest_id")
        self._seconds_are_counted_once(node)

    @staticmethod
    def _ended_once(begun: Iterable[UUID], ends: Sequence[Fact], name: str) -> None:
        said = [getattr(end, name) for end in ends if not getattr(end, "synthesized", True)]
        assert len(said) == len(set(said)), "the media server's word came twice"
        assert set(begun) <= {getattr(end, name) for end in ends}

    @staticmethod
    def _seconds_are_counted_once(node: Node) -> None:
        """What readers take of each viewing (the server's word, else the last conclusion) adds up to no more than was watched."""
        counted: dict[str, int] = {}
        for ends in node.left().values():
            best = next((end for end in ends if not end.synthesized), ends[-1])
            counted[best.session_id] = counted.get(best.session_id, 0) + best.seconds
        for sessid, seconds in counted.items():
            assert seconds <= node.mist.state.watched.get(sessid, 0), sessid


Adversary.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAdversary = Adversary.TestCase
