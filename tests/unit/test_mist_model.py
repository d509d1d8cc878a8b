"""The model of MistServer does what was recorded of a real one."""

from __future__ import annotations

from collections import Counter

import pytest

from infra.recordings import read
from tests.mist.model import MistServer
from tests.mist.state import Flavour
from tests.mist.triggers import is_yes
from tests.mist.wire import Answer, Failed, Post

PER_CONNECTION = {"CONN_OPEN", "CONN_CLOSE", "CONN_PLAY", "PLAY_REWRITE"}  # as many as a player makes connections
UNMODELLED = {"LIVE_BANDWIDTH", "INPUT_START"}


class Answering:
    """Answers as the recordings' handler did; `answers` by trigger."""

    def __init__(self) -> None:
        self.heard: list[Post] = []
        self.answers: dict[str, str | int | None] = {}

    def post(self, post: Post) -> Answer | None:
        self.heard.append(post)
        answer = self.answers.get(post.name, self.usual(post))
        if answer is None:
            raise Failed(is_refused=True)
        if not post.is_sync:
            return None
        return Answer(answer, "") if isinstance(answer, int) else Answer(200, answer)

    @staticmethod
    def usual(post: Post) -> str:
        lines = post.body.decode().split("\n")
        if post.name in ("RTMP_PUSH_REWRITE", "PLAY_REWRITE"):
            return lines[0]
        return {"PUSH_REWRITE": "live+cam1", "STREAM_SOURCE": "", "PUSH_OUT_START": lines[-1]}.get(post.name, "true")

    def names(self) -> list[str]:
        return [post.name for post in self.heard]

    def bodies(self, name: str) -> list[str]:
        return [post.body.decode() for post in self.heard if post.name == name]


def server(flavour: Flavour = "stock") -> tuple[MistServer, Answering]:
    wire = Answering()
    mist = MistServer(wire, flavour=flavour)
    mist.configure("http://agent")
    wire.heard.clear()
    return mist, wire


@pytest.mark.parametrize(
    ("recording", "flavour"), [("1-publisher-3-hls-viewers", "stock"), ("fork/1-publisher-3-hls-viewers", "fork")]
)
def test_one_publisher_and_three_viewers_make_the_recorded_triggers(recording: str, flavour: Flavour) -> None:
    mist, wire = server(flavour)
    publisher = mist.publish("sk-7f3a9c", "127.0.0.1")
    mist.advance(5)
    watching = [mist.watch("live+cam1", f"127.0.1.{n}") for n in (1, 2, 3)]
    mist.advance(13)
    for viewer in watching:
        mist.leave(viewer)
    mist.advance(4)
    mist.unpublish(publisher)
    mist.advance(40)
    mist.stop()
    recorded = [t for t in read(recording) if t.name not in UNMODELLED | PER_CONNECTION | {"SYSTEM_START", "OUTPUT_START"}]
    mine = [post for post in wire.heard if post.name not in PER_CONNECTION]
    assert Counter(p.name for p in mine) == Counter(t.name for t in recorded)
    shape = {t.name: t.body.count("\n") for t in recorded}
    assert {p.name: p.body.count(b"\n") for p in mine} == shape
    first = next(post for post in wire.heard if post.name == "USER_NEW")
    names = list(first.headers)
    assert names == sorted(names)
    theirs = next(t for t in read(recording) if t.name == "USER_NEW").headers
    assert {n.lower() for n in names if n.startswith("X-")} == {n.lower() for n in theirs if n.lower().startswith("x-")}


def test_the_first_four_seconds_of_a_publisher_are_in_the_recorded_order() -> None:
    mist, wire = server()
    mist.publish("sk-7f3a9c", "127.0.0.1")
    mist.advance(5)
    recorded = [t.name for t in read("1-publisher-3-hls-viewers")]
    began = recorded.index("CONN_OPEN")
    expected = [name for name in recorded[began : recorded.index("STREAM_BUFFER") + 1] if name not in UNMODELLED]
    assert wire.names() == expected


def test_a_refused_session_is_parked_for_ten_minutes_and_asked_once() -> None:
    mist, wire = server()
    mist.publish("k")
    wire.answers["USER_NEW"] = "false"
    assert mist.watch("live+cam1", token="fixed1").refusal
    wire.answers.clear()
    assert mist.watch("live+cam1", token="fixed1").refusal
    assert wire.names().count("USER_NEW") == 1
    mist.advance(590)
    assert not wire.bodies("USER_END")
    mist.advance(15)
    [ended] = wire.bodies("USER_END")
    assert ended.split("\n")[:11] == ["fixed1", "", "", "", "0", "0", "0", "", "", "", ""]


@pytest.mark.parametrize("text", ["1", "yes", "True", " true\n", "true;", "TRUEish", "continue"])
def test_what_is_read_as_yes(text: str) -> None:
    assert is_yes(text)


@pytest.mark.parametrize("text", ["", "0", "no", "ok", "2", "on", "banana"])
def test_what_is_read_as_no(text: str) -> None:
    assert not is_yes(text)


def test_a_status_is_not_tried_again_and_a_refused_connection_is_five_times_and_then_the_text_true() -> None:
    mist, wire = server()
    wire.answers["PUSH_REWRITE"] = 500
    refused = mist.publish("k")
    assert (refused.stream, refused.refusal) == ("true", "UNKNOWN")
    assert wire.names().count("PUSH_REWRITE") == 1
    wire.answers["PUSH_REWRITE"] = None
    assert mist.publish("k").refusal == "UNKNOWN"
    attempts = [post.attempt for post in wire.heard if post.name == "PUSH_REWRITE"]
    assert attempts == [1, 1, 2, 3, 4, 5]
    assert len({post.uuid for post in wire.heard if post.name == "PUSH_REWRITE"}) == 2


def test_a_crash_of_the_controller_forgets_what_was_not_saved_and_leaves_the_rest_running() -> None:
    mist, wire = server()
    mist.publish("k")
    viewer = mist.watch("live+cam1")
    mist.call({"config": {"serverid": "renamed"}})
    before = mist.call({"config": True})
    mist.kill_controller()
    after = mist.call({"config": True})
    assert before is not None
    assert after is not None
    assert before["config"]["iid"] != after["config"]["iid"]
    assert (before["config"]["serverid"], after["config"]["serverid"]) == ("renamed", "edge-under-test")
    started = [post for post in wire.heard if post.name == "SYSTEM_START"]
    assert [post.headers.get("X-Instance") for post in started] == [None]
    assert mist.publishing() == {"live+cam1": 1}
    assert viewer.session
    assert list(mist.viewings()) == [viewer.session.sessid]
    mist.advance(1)
    listed = mist.call({"clients": {"time": -5}})
    assert listed is not None
    assert listed["clients"]["data"] is None  # statistics begin anew
    mist.advance(10)
    listed = mist.call({"clients": {"time": -5}})
    assert listed is not None
    assert len(listed["clients"]["data"]) == 2


def test_nothing_is_said_of_what_was_killed() -> None:
    mist, wire = server()
    publisher = mist.publish("k")
    viewer = mist.watch("live+cam1")
    mist.kill_session(viewer)
    mist.call({"push_start": ["live+cam1", "/rec/a.mkv"]})
    wire.heard.clear()
    mist.kill_push(mist.state.pushes[0])
    mist.advance(1)
    assert wire.names() == ["PUSH_END"]
    mist.unpublish(publisher, "kill")
    assert sorted(wire.names()) == ["LIVE_TRACK_LIST", "PUSH_END", "STREAM_BUFFER", "STREAM_UNLOAD"]
    mist.kill_everything()
    assert len(wire.heard) == 4
    mist.start()
    assert wire.names()[4] == "SYSTEM_START"


def test_stop_calls_end_what_the_contract_says() -> None:
    mist, wire = server()
    mist.publish("k")
    viewer = mist.watch("live+cam1", token="t")
    mist.advance(3)
    wire.answers["USER_NEW"] = "false"
    mist.call({"invalidate_sessions": "live+cam1"})
    assert wire.bodies("USER_NEW")[-1].count("\n") == 5
    assert not mist.viewings()
    wire.answers.clear()
    mist.watch("live+cam1", token="u")
    wire.heard.clear()
    mist.call({"nuke_stream": "live+cam1"})
    assert not mist.publishing()
    assert len(mist.viewings()) == 1
    [empty] = wire.bodies("STREAM_BUFFER")
    assert empty == "live+cam1\nEMPTY\n30261"
    mist.publish("k")
    wire.heard.clear()
    mist.call({"stop_sessions": "live+cam1"})
    assert not mist.publishing()
    assert not mist.viewings()
    assert "USER_END" in wire.names()
    assert viewer.session
