"""Push targets and recordings on a media server: what is wanted is done, what is done is told, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

import pytest

from edge_agent.task_runner import TaskRunner
from edge_agent.task_settings import TaskSettings
from edge_agent.tasks import FOREIGN, NEVER_THERE, NO_URL, NOT_LIVE, pause
from streams.generated import PushTargetState
from tests.edge_node import STREAM
from tests.task_node import LIVE, ONE, TWO, URL, Disk, TaskNode, push, recording


def live(**settings: object) -> TaskNode:
    """A node on which the stream is on the air."""
    node = TaskNode(settings=TaskSettings(**settings)) if settings else TaskNode()  # type: ignore[arg-type]
    node.on_air()
    node.advance(5)
    return node


@pytest.mark.parametrize("flavour", ["stock", "fork"])
def test_a_stream_is_pushed_while_it_is_live(flavour: str) -> None:
    node = TaskNode(flavour=flavour)  # type: ignore[arg-type]
    node.want(push())
    node.advance(10)
    assert (node.api.asked, node.story()) == ([], []), "a node without the stream says nothing of its targets"
    publisher = node.on_air()
    node.advance(15)
    assert node.mist.pushing() == [(LIVE, URL)]
    assert node.story() == ["CONNECTING", "ACTIVE"]
    assert node.reports() == [("START_PUSH", "ACKNOWLEDGED"), ("START_PUSH", "DONE")]
    node.mist.unpublish(publisher)
    node.advance(20)
    assert node.mist.pushing() == []
    assert node.story()[-1] == "WAITING"
    assert node.states()[-1].reason == NOT_LIVE
    assert node.task() is None
    node.on_air()
    node.advance(15)
    assert node.mist.pushing() == [(LIVE, URL)]
    assert node.story()[-2:] == ["CONNECTING", "ACTIVE"]
    assert len(node.api.asked) == 2


def test_no_secret_is_told() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.end_push("FORMAT_SPECIFIC", "server refused publish of live_1_secret")
    node.advance(5)
    assert any(s.reason and "server refused publish of …" in s.reason for s in node.states())
    assert not [f for f in node.agent.said() if "live_1_secret" in repr(f)]
    assert not [v for v in node.agent.rows.values() if b"live_1_secret" in v]


def test_a_push_that_is_switched_off_is_ended_and_told() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.want()
    node.advance(5)
    assert node.mist.pushing() == []
    assert node.story() == ["CONNECTING", "ACTIVE", "STOPPED"]
    assert node.reports()[-1] == ("STOP_PUSH", "DONE")
    assert (node.task(), len([c for c in node.api.asked if "push_stop" in c])) == (None, 1)


def test_a_target_that_is_added_while_the_stream_is_live_is_pushed_to_at_once() -> None:
    node = live()
    node.want(push(), push(TWO, 12), urls={TWO: "srt://b.example.org:9000?streamid=secret"})
    node.advance(8)
    assert {target for _, target in node.mist.pushing()} == {URL, "srt://b.example.org:9000?streamid=secret"}
    node.want(push(TWO, 12))
    node.advance(5)
    assert [target for _, target in node.mist.pushing()] == ["srt://b.example.org:9000?streamid=secret"]
    assert (node.story(ONE)[-1], node.story(TWO)[-1]) == ("STOPPED", "ACTIVE")


def test_what_ends_is_tried_again_with_growing_pauses_and_the_servers_reason() -> None:
    node = live()
    node.want(push())
    starts = []
    for _ in range(400):
        node.advance(1)
        if node.mist.pushing():
            starts.append(node.agent.now_ms)
            node.end_push("FORMAT_SPECIFIC", "connection refused")
    pauses = [round((b - a) / 1000) for a, b in pairwise(starts)]
    assert pauses[:5] == sorted(pauses[:5])
    assert pauses[0] <= 6
    assert all(60 <= p <= 66 for p in pauses[6:]), pauses
    last = node.states()[-1]
    assert (last.state, last.reason) == (PushTargetState.BACKING_OFF, "connection refused (FORMAT_SPECIFIC)")
    assert last.retry_at is not None
    assert last.attempt >= 7


def test_pauses_double_up_to_a_minute() -> None:
    assert [pause(n) // 1000 for n in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pause(10_000) == 60_000


def test_a_push_that_ran_for_a_minute_begins_anew() -> None:
    node = live()
    node.want(push())
    for _ in range(3):
        node.advance(5)
        node.end_push("FORMAT_SPECIFIC", "connection refused")
        node.advance(10)
    assert node.task() is not None
    node.advance(90)
    node.end_push("CLEAN_REMOTE_CLOSE", "connection closed")
    node.advance(3)
    backing_off = [s for s in node.states() if s.state is PushTargetState.BACKING_OFF]
    assert [s.attempt for s in backing_off] == [1, 2, 3, 1]


def test_a_push_whose_process_is_killed_is_tried_again() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.mist.kill_push(node.mist.state.pushes[0])
    node.advance(10)
    assert node.story() == ["CONNECTING", "ACTIVE", "BACKING_OFF", "CONNECTING", "ACTIVE"]


def test_an_end_that_nobody_told_is_seen() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.wire.fault = lambda post: "lost" if post.name in ("PUSH_END", "OUTPUT_END") else ""
    node.end_push("CLEAN_EOF", "gone")
    node.advance(6)
    [gone] = [s for s in node.states() if s.state is PushTargetState.BACKING_OFF]
    assert gone.reason == "it is gone, and the media server did not say why"
    node.advance(10)
    assert node.mist.pushing() == [(LIVE, URL)]


def test_bytes_are_told_every_minute() -> None:
    node = live()
    node.want(push())
    node.advance(200)
    sent = [s.sent_bytes for s in node.states() if s.state is PushTargetState.ACTIVE]
    assert len(sent) == 4
    assert sent == sorted(sent, key=lambda b: b or 0)
    assert len({s.since for s in node.states() if s.state is PushTargetState.ACTIVE}) == 1


def test_what_the_media_server_cannot_start_is_tried_again() -> None:
    node = live()
    node.want(push(), urls={ONE: "rtmps://c.example.org/app/key"})  # it has no output for that, and says nothing
    node.advance(10)
    assert node.mist.pushing() == []
    assert node.story()[:2] == ["CONNECTING", "BACKING_OFF"]
    assert {s.reason for s in node.states() if s.state is PushTargetState.BACKING_OFF} == {NEVER_THERE}


def test_a_push_of_somebody_else_is_told_and_left_alone() -> None:
    node = live()
    node.mist.call({"push_start": [LIVE, URL]})
    node.mist.call({"push_start": [LIVE, "rtmp://else.example.org/app/operator"]})
    node.want(push())
    node.advance(10)
    assert node.story() in (["ACTIVE"], ["CONNECTING", "ACTIVE"])
    assert node.states()[-1].reason == FOREIGN
    node.want()
    node.advance(10)
    assert node.api.asked == []
    assert len(node.mist.pushing()) == 2
    assert node.reports()[-1] == ("STOP_PUSH", "FAILED")


def test_an_agent_that_is_killed_goes_on_where_it_was() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.kill_agent()
    node.advance(10)
    assert node.story() == ["CONNECTING", "ACTIVE"]
    assert len(node.api.asked) == 1
    node.kill_agent()
    node.want()
    node.advance(5)
    assert node.mist.pushing() == [], "it knows that the push is its own"
    assert node.story()[-1] == "STOPPED"


def test_an_agent_that_is_killed_between_the_start_and_its_answer_knows_the_push_as_its_own() -> None:
    node = live()

    class KilledError(Exception):
        pass

    def die() -> None:
        raise KilledError

    node.want(push())
    node.api.dies_after_push_start = die
    with pytest.raises(KilledError):
        node.advance(1)
    node.api.dies_after_push_start = None
    assert node.mist.pushing() == [(LIVE, URL)]
    node.kill_agent()
    node.advance(10)
    assert (node.story(), len(node.api.asked)) == (["CONNECTING", "ACTIVE"], 1)
    assert node.states()[-1].reason is None
    node.want()
    node.advance(5)
    assert node.mist.pushing() == []


def test_what_changed_while_the_agent_was_away_is_done_when_it_is_back() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.api.is_up = False
    node.want(push(TWO, 12), urls={TWO: "rtmp://b.example.org/app/secret2"})
    node.advance(60)
    assert node.mist.pushing() == [(LIVE, URL)], "nothing is concluded of a server that does not answer"
    assert node.runner.problem == "nobody is there"
    node.api.is_up = True
    node.advance(12)
    assert node.mist.pushing() == [(LIVE, "rtmp://b.example.org/app/secret2")]
    assert (node.story(ONE)[-1], node.story(TWO)[-1]) == ("STOPPED", "ACTIVE")


def test_a_crash_of_the_controller_ends_no_push_and_starts_none_twice() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.mist.kill_controller()
    node.advance(60)
    assert node.mist.pushing() == [(LIVE, URL)]
    assert len(node.api.asked) == 1
    node.want()
    node.advance(5)
    assert node.mist.pushing() == [], "it still is our own"


def test_after_a_crash_of_everything_the_next_publisher_is_pushed() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.mist.kill_everything()
    node.mist.start()
    node.advance(90)
    assert node.story()[-1] == "WAITING"
    node.on_air()
    node.advance(15)
    assert node.mist.pushing() == [(LIVE, URL)]
    assert node.story()[-1] == "ACTIVE"


def test_asked_for_again_while_it_runs_it_goes_on() -> None:
    node = live()
    node.want(push())
    node.advance(10)
    node.want(push(request=12))
    node.advance(5)
    assert len(node.api.asked) == 1
    done = [f for f in node.agent.facts if type(f[0]).__name__ == "EdgeActionReported"]
    assert [(f.request_id, f.status.value) for f, _ in done][-1] == (UUID(int=12), "DONE")  # type: ignore[union-attr]
    assert node.states()[-1].request_id == UUID(int=12)


def test_a_url_that_has_not_come_is_waited_for() -> None:
    node = live()
    node.want(push())
    del node.agent.policy.secrets[ONE]
    node.advance(5)
    assert [(s.state, s.reason) for s in node.states()] == [(PushTargetState.WAITING, NO_URL)]
    node.agent.policy.secrets[ONE] = URL.encode()
    node.advance(10)
    assert node.story() == ["WAITING", "CONNECTING", "ACTIVE"]


def test_a_target_in_a_private_network_fails_unless_the_operator_allows_it() -> None:
    node = live(allows_private_pushes=False)
    node.want(push(), urls={ONE: "rtmp://10.0.0.7/app/key"})
    node.advance(10)
    assert node.story() == ["FAILED"]
    assert node.reports() == [("START_PUSH", "FAILED")]
    assert node.api.asked == []
    node.want(push(request=12), urls={ONE: "rtmp://10.0.0.7/app/key"})
    node.advance(5)
    assert node.reports() == [("START_PUSH", "FAILED")] * 2, "asked for again it is looked at again"


def test_a_stream_that_is_pulled_from_another_node_is_not_pushed_from_here() -> None:
    node = live()
    for _, ingest in node.agent.agent.state.open_ingests(STREAM):
        node.agent.agent.state.ingests.drop_where(lambda i, gone=ingest: i == gone)  # type: ignore[misc]
    node.is_looking = False
    node.want(push())
    node.advance(10)
    assert node.api.asked == []


def test_recordings_run_while_the_stream_is_live_and_end_when_they_are_called_off() -> None:
    node = live()
    node.want(recordings=[recording()])
    node.advance(10)
    [(stream, target)] = node.mist.pushing()
    assert (stream, target) == (LIVE, f"/rec/$stream-$datetime-{TWO}.mkv")
    assert node.story(TWO) == ["CONNECTING", "ACTIVE"]
    node.want()
    node.advance(5)
    assert node.mist.pushing() == []
    assert node.reports() == [("START_RECORDING", "ACKNOWLEDGED"), ("START_RECORDING", "DONE"), ("STOP_RECORDING", "DONE")]
    assert node.agent.names().count("RecordingEnded") == 1


def test_a_node_without_a_place_for_recordings_says_so() -> None:
    node = live(recordings_dir=None)
    node.want(recordings=[recording()])
    node.advance(5)
    assert node.story(TWO) == ["FAILED"]
    assert "FW_EDGE_RECORDINGS_DIR" in (node.states()[-1].reason or "")


def test_what_has_expired_is_not_begun_and_is_ended() -> None:
    node = live()
    in_a_while = datetime.fromtimestamp(node.agent.now_ms / 1000 + 20, UTC)
    node.want(replace(push(), expires_at=in_a_while))
    node.advance(10)
    assert node.mist.pushing() == [(LIVE, URL)]
    node.advance(15)
    assert node.mist.pushing() == []
    late = live()
    late.want(replace(push(), expires_at=datetime.fromtimestamp(late.agent.now_ms / 1000 - 1, UTC)))
    late.advance(10)
    assert late.api.asked == []


def test_an_agent_without_the_media_servers_api_says_so() -> None:
    node = live()
    node.runner = TaskRunner(node.agent.agent, Disk(), node.observe, None, node.settings, lambda: node.agent.now_ms)
    node.want(push())
    node.advance(3)
    assert node.story() == ["FAILED"]
    assert "FW_EDGE_MIST_API" in (node.states()[-1].reason or "")
