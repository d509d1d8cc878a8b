"""What the API lists and what triggers told, compared: nothing stays open that is not, and nothing ends that goes on."""

from __future__ import annotations

from edge_agent.mist.truth import believe_silence
from streams.generated import (
    AdmissionBasis,
    IngestEnded,
    StreamWentOffline,
    ViewerEnd,
)
from tests.edge_node import KEY
from tests.mist.direct import Fault, Node
from tests.mist.state import Flavour

STREAM = "live+lobby"


def lost(*names: str) -> Fault:
    return lambda post: "lost" if post.name in names else ""


def on_air(node: Node) -> None:
    assert node.mist.publish(KEY).refusal is None


def test_a_viewer_whose_leave_was_lost_is_ended_with_what_was_last_known_and_no_other_is() -> None:
    node = Node()
    on_air(node)
    gone, stays = node.mist.watch(STREAM, "203.0.113.1"), node.mist.watch(STREAM, "203.0.113.2")
    node.advance(30)
    node.wire.fault = lost("USER_END")
    node.mist.leave(gone)
    node.advance(120)
    [[ended]] = node.left().values()
    assert (ended.seconds, ended.up_bytes) == (30, 30 * 52_000)
    assert (ended.end_reason, ended.synthesized) == (ViewerEnd.NOT_LISTED, True)
    evidence = ended.evidence or ""
    assert evidence.startswith("not listed in clients for 45 s; last seen ")
    assert evidence.endswith("with 30 s and 1560000 bytes")
    assert stays.session
    assert node.open_sessions() == {stays.session.sessid: 1}


def test_a_server_that_tells_everything_gives_nothing_to_conclude() -> None:
    flavours: tuple[Flavour, ...] = ("stock", "fork")
    for flavour in flavours:
        node = Node(flavour=flavour)
        on_air(node)
        publisher = next(iter(node.mist.state.publishers.values()))
        viewers = [node.mist.watch(STREAM, f"203.0.113.{n}") for n in range(5)]
        node.mist.call({"push_start": [STREAM, "/rec/a.mkv"]})
        for viewer in viewers:
            node.advance(37)
            node.mist.leave(viewer)
        node.mist.unpublish(publisher)
        node.advance(120)
        assert not [f for f in node.agent.said() if getattr(f, "synthesized", False) or getattr(f, "evidence", None)]
        assert len(node.left()) == 5
        assert (node.truth.lost_total, node.truth.found_total) == (0, 0)


def test_a_crash_of_the_controller_ends_nothing() -> None:
    node = Node()
    on_air(node)
    viewer = node.mist.watch(STREAM)
    node.mist.call({"push_start": [STREAM, "/rec/a.mkv"]})
    node.advance(30)
    node.mist.kill_controller()
    node.advance(120)
    assert not node.left()
    assert not node.ended()
    assert not node.push_ends()
    assert not any(ingest.is_lost for ingest in node.agent.agent.state.ingests)
    node.mist.leave(viewer)
    node.advance(20)
    [[ended]] = node.left().values()
    assert (ended.seconds, ended.synthesized) == (150, False)


def test_silence_that_was_believed_by_mistake_is_taken_back_and_counted_once() -> None:
    node = Node()
    on_air(node)
    viewer = node.mist.watch(STREAM)
    node.advance(60)
    node.agent.take(node.agent.agent.observe(believe_silence, node.mist.clock.wall_ms, uuid="nobody could look"))
    assert not node.open_sessions()
    node.advance(40)
    assert viewer.session
    assert node.open_sessions() == {viewer.session.sessid: 1}
    node.mist.leave(viewer)
    node.advance(60)
    [ends] = node.left().values()
    assert [(end.synthesized, end.end_reason) for end in ends] == [
        (True, ViewerEnd.NODE_RESTARTED),
        (False, ViewerEnd.DISCONNECTED),
    ]
    assert ends[-1].seconds == 100


def test_after_a_restart_of_everything_nothing_is_open_that_is_not() -> None:
    for is_heard in (True, False):
        node = Node()
        on_air(node)
        node.mist.watch(STREAM, token="t")
        node.advance(30)
        node.wire.fault = lambda _post, is_heard=is_heard: "" if is_heard else "lost"  # type: ignore[misc]
        node.mist.kill_everything()
        node.advance(5)
        node.mist.start()
        node.wire.fault = lambda _post: ""
        node.mist.configure("http://agent/trigger")
        node.advance(120)
        [[left]] = node.left().values()
        assert (left.end_reason, left.seconds, left.synthesized) == (ViewerEnd.NODE_RESTARTED, 25, True)  # of five seconds before
        assert "started anew" in (left.evidence or "")
        [[ended]] = node.ended().values()
        assert (ended.end_reason, ended.synthesized) == ("SOURCE_LOST", True)
        assert not node.open_sessions()
        assert not node.open_publishers()
        assert len(node.agent.said(StreamWentOffline)) == 1


def test_a_publisher_that_died_with_the_server_ended_when_it_was_last_seen_and_not_when_the_next_one_came() -> None:
    node = Node()
    node.mist.publish(KEY)
    node.advance(20)
    node.mist.kill_everything()
    died_ms = node.mist.clock.wall_ms
    node.advance(60)
    node.mist.start()
    node.mist.publish(KEY)
    [(end, meta)] = [(f, m) for f, m in node.agent.facts if isinstance(f, IngestEnded)]
    assert (end.end_reason, end.synthesized) == ("SOURCE_LOST", True)
    ended_ms = meta.occurred_at.timestamp() * 1000
    assert died_ms - 4_000 <= ended_ms <= died_ms
    assert end.seconds is not None
    assert 8 <= end.seconds <= 20
    node.advance(60)
    assert len(node.agent.said(IngestEnded)) == 1


def test_a_publisher_that_died_with_server_and_agent_ended_when_it_was_last_known_to_be_there() -> None:
    """As when the machine lost its power."""
    node = Node()
    on_air(node)
    node.advance(200)
    node.mist.kill_everything()
    node.kill_agent()
    node.advance(20)
    node.mist.start()
    node.advance(120)
    [[ended]] = node.ended().values()
    [at] = [meta.occurred_at for fact, meta in node.agent.facts if isinstance(fact, IngestEnded)]
    assert ended.started_at is not None
    lasted = (at - ended.started_at).total_seconds()
    assert 200 - 70 <= lasted <= 200  # it is written down once a minute
    assert ended.seconds is not None
    assert abs(ended.seconds - lasted) <= 10
    assert ended.received_bytes
    assert "last seen" in (ended.evidence or "")


def test_a_publisher_comes_back_after_a_restart_without_waiting_for_the_truth() -> None:
    node = Node()
    on_air(node)
    node.advance(30)
    node.mist.kill_everything()
    node.mist.start()
    node.advance(2)
    assert node.mist.publish(KEY).refusal is None
    node.advance(90)
    assert node.open_publishers() == {STREAM: 1}
    assert [len(ends) for ends in node.ended().values()] == [1]


def test_a_viewer_whom_the_server_trusts_by_itself_is_found_and_ended_once() -> None:
    node = Node()
    on_air(node)
    node.mist.state.jwts.add("a.b.c")
    viewer = node.mist.watch(STREAM, jwt="a.b.c")
    node.advance(60)
    [[joined]] = node.joined().values()
    assert (joined.synthesized, joined.basis, joined.connector) == (True, AdmissionBasis.MEDIA_SERVER, "HLS")
    assert joined.evidence
    assert joined.evidence.endswith("no USER_NEW was heard")
    node.mist.leave(viewer)
    node.advance(60)
    [[left]] = node.left().values()
    assert (left.viewing_id, left.seconds, left.synthesized) == (joined.viewing_id, 60, False)


def test_a_refused_viewer_is_never_a_session_even_if_it_were_listed() -> None:
    node = Node()
    node.mist.state.is_listing_parked = True
    on_air(node)
    node.mist.state.streams["live"] = {"source": "push://"}
    node.agent.policy.update([], 0)
    node.wire.fault = lambda post: ""
    viewer = node.mist.watch("live+nobodys")
    assert viewer.refusal
    node.advance(700)
    assert not node.joined()
    assert not node.left()


def test_a_viewer_that_came_while_the_agent_was_down_is_found_and_its_late_leave_pairs() -> None:
    node = Node()
    on_air(node)
    node.wire.fault = lost("USER_NEW")
    node.is_looking = False
    viewer = node.mist.watch(STREAM)
    node.advance(40)
    node.wire.fault = lambda _post: ""
    node.is_looking = True
    node.kill_agent()
    node.advance(20)
    [[joined]] = node.joined().values()
    assert joined.synthesized
    node.mist.leave(viewer)
    node.advance(17)
    [[left]] = node.left().values()
    assert (left.viewing_id, left.seconds, left.synthesized) == (joined.viewing_id, 60, False)


def test_a_killed_session_process_is_ended_once_and_its_viewer_begins_another_viewing() -> None:
    node = Node()
    on_air(node)
    viewer = node.mist.watch(STREAM, token="t")
    node.advance(30)
    node.mist.kill_session(viewer)
    node.advance(10)
    again = node.mist.watch(STREAM, token="t")
    node.advance(30)
    node.mist.leave(again)
    node.advance(60)
    assert sorted((f.seconds, f.synthesized, f.end_reason) for ends in node.left().values() for f in ends) == [
        (28, True, ViewerEnd.SUPERSEDED),  # of the last look, which sees what was five seconds before
        (30, False, ViewerEnd.DISCONNECTED),
    ]


def test_the_clock_on_the_wall_may_jump_by_hours_and_nothing_ends() -> None:
    node = Node()
    on_air(node)
    node.mist.watch(STREAM)
    for jump in (7200, -86_400, 3600, -1):
        node.advance(20)
        node.mist.clock.jump(jump)
        node.agent.now_ms = node.mist.clock.wall_ms
    node.advance(60)
    assert not node.left()
    assert not node.ended()
    assert node.open_publishers() == {STREAM: 1}


def test_while_the_api_does_not_answer_nothing_is_concluded_and_the_time_does_not_count() -> None:
    node = Node()
    on_air(node)
    node.mist.watch(STREAM)
    node.advance(30)
    node.is_looking = False
    node.wire.fault = lost("USER_END", "STREAM_END", "OUTPUT_END", "STREAM_BUFFER", "STREAM_UNLOAD")
    node.mist.kill_everything()
    node.advance(600)
    assert not node.left()
    node.wire.fault = lost("SYSTEM_START")
    node.mist.start()
    node.is_looking = True
    node.advance(30)
    assert not node.left()  # it was looked at for 30 s, not for ten minutes
    node.advance(30)
    assert [f.end_reason for ends in node.left().values() for f in ends] == [ViewerEnd.NODE_RESTARTED]
    assert len(node.ended()) == 1


def test_a_publisher_by_a_key_of_the_servers_own_is_found_and_ended_by_its_last_word() -> None:
    node = Node()
    node.mist.call({"streamkey_add": {"KEY-ABC": STREAM}})
    publisher = node.mist.publish("KEY-ABC")
    node.advance(40)
    [[started]] = node.started().values()
    assert (started.synthesized, started.key_prefix, started.protocol) == (True, None, "RTMP")
    node.mist.unpublish(publisher)
    node.advance(60)
    [[ended]] = node.ended().values()
    assert (ended.ingest_id, ended.end_reason, ended.synthesized) == (started.ingest_id, "CLEAN_INTENDED_STOP", False)
    assert not node.open_publishers()


def test_a_publisher_that_just_left_is_not_found_although_its_session_is_listed_for_a_while() -> None:
    node = Node()
    for _ in range(3):
        on_air(node)
        node.advance(31)
        node.mist.unpublish(next(iter(node.mist.state.publishers.values())), "close")
        node.advance(40)
    assert [len(s) for s in node.started().values()] == [1, 1, 1]
    assert not any(f.synthesized for ends in node.ended().values() for f in ends)


def test_a_publisher_whose_end_was_lost_is_ended_and_does_not_block_for_ever() -> None:
    node = Node()
    on_air(node)
    node.advance(30)
    node.wire.fault = lambda _post: "lost"
    node.mist.unpublish(next(iter(node.mist.state.publishers.values())))
    node.wire.fault = lambda _post: ""
    assert node.mist.publish(KEY).refusal is not None
    node.advance(75)
    [[ended]] = node.ended().values()
    assert (ended.end_reason, ended.seconds, ended.received_bytes) == ("SOURCE_LOST", 30, 30 * 48_000)
    assert "the stream is" in (ended.evidence or "")
    on_air(node)


def test_a_dead_buffer_of_which_nothing_was_said_does_not_end_its_publisher() -> None:
    node = Node()
    on_air(node)
    viewer = node.mist.watch(STREAM)
    node.advance(30)
    node.mist.kill_buffer(STREAM, is_production=False)
    node.advance(120)
    assert not node.ended()
    assert not node.left()
    node.mist.leave(viewer)


def test_pushes_are_ended_and_found_like_everything_else() -> None:
    node = Node()
    on_air(node)
    node.mist.call({"push_start": [STREAM, "/rec/a.mkv"]})
    node.advance(30)
    node.wire.fault = lost("PUSH_END")
    node.mist.kill_push(node.mist.state.pushes[0])
    node.advance(60)
    [[ended]] = node.push_ends().values()
    assert (ended.end_reason, ended.synthesized, ended.seconds) == ("KILLED", True, 30)
    node.wire.fault = lambda post: "lost" if post.name == "PUSH_OUT_START" else ""
    node.mist.state.controller.config["triggers"].pop("PUSH_OUT_START")  # type: ignore[union-attr]
    node.wire.fault = lambda _post: ""
    node.mist.call({"push_start": [STREAM, "/rec/b.mkv"]})
    node.advance(30)
    found = [starts[0] for starts in node.pushed().values() if starts[0].synthesized]
    assert [(f.target, bool(f.evidence)) for f in found] == [("/rec/b.mkv", True)]
    node.mist.call({"push_stop": STREAM})
    node.advance(5)
    assert node.push_ends()[found[0].push_id][0].end_reason == "CLEAN_SIGNAL"
    assert not node.open_pushes()


def test_an_agent_that_was_killed_still_knows_the_last_figures_of_who_left_meanwhile() -> None:
    node = Node()
    on_air(node)
    viewer = node.mist.watch(STREAM)
    node.advance(130)
    node.wire.is_up = False
    node.mist.leave(viewer)
    node.advance(40)
    node.wire.is_up = True
    node.kill_agent()
    node.advance(60)
    [[left]] = node.left().values()
    assert left.synthesized
    assert 60 <= left.seconds <= 130


def test_a_clock_that_is_set_back_by_a_day_hides_nobody_for_a_day() -> None:
    node = Node()
    node.mist.call({"streamkey_add": {"KEY-ABC": STREAM}})
    short = node.mist.publish("KEY-ABC")
    node.advance(5)
    node.mist.unpublish(short)
    node.mist.clock.jump(-86_400)
    node.advance(60)
    assert node.mist.publish("KEY-ABC").refusal is None
    node.advance(60)
    assert node.open_publishers() == {STREAM: 1}
