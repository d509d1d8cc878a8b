"""What has to be done to a MistServer: pure, safe in its order, and never to what is somebody else's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.catalogue import CATALOGUE
from edge_agent.mist import config, triggers
from edge_agent.mist.plan import COUNT_ALL, Desired, Observed, Step, plan, problems, url_problem
from edge_agent.mist.server import configured_streams
from tests.mist.api import STOCK_TRIGGERS
from tests.mist.model import MistServer
from tests.mist.recordings import reply
from tests.mist.triggers import FORK_ONLY

URL = "http://127.0.0.1:18007"
DESIRED = Desired(URL)
FRESH = Observed(config.Config(version="3.10", prometheus=""))


def observed(mist: MistServer) -> Observed:
    answer = mist.call({"config": True, "streams": True, "bandwidth": True})
    assert answer is not None
    exceptions = tuple(answer["bandwidth"]["exceptions"])
    return Observed(config.read(answer), configured_streams(answer), exceptions, mist.state.flavour == "fork")


def written(step: Step) -> Any:
    """The section of triggers that a step writes."""
    config: Any = step.commands["config"]
    return config["triggers"]


def carried_out(mist: MistServer, desired: Desired) -> list[str]:
    """Names of the steps, each taken from a plan of what the server says then."""
    done = []
    while steps := plan(desired, observed(mist)):
        mist.call(steps[0].commands)
        done.append(steps[0].name)
        assert len(done) < 100
    return done


@pytest.mark.parametrize("flavour", ["stock", "fork"])
def test_a_plan_that_was_carried_out_is_empty_and_every_trigger_is_one_that_we_handle(flavour: Any) -> None:
    mist = MistServer(flavour=flavour)
    done = carried_out(mist, DESIRED)
    assert len(done) == len(set(done))
    names = set(observed(mist).config.handlers())
    assert names <= CATALOGUE.keys()
    expected = (set(STOCK_TRIGGERS) | {"CONN_STOP"}) - {"LIVE_BANDWIDTH"} | (FORK_ONLY if flavour == "fork" else set())
    assert names == expected
    assert done[-1] == "stream live"  # nobody publishes before publishers are asked about


def test_the_settings_of_each_trigger_are_what_the_answers_of_a_real_server_ask_for() -> None:
    """CONTRACT 2.3: without us rewrites open nothing, what may stay open stays open; the controller and the buffer never wait."""
    wanted = triggers.wanted(is_fork=True)
    rewrites = {"PUSH_REWRITE", "RTMP_PUSH_REWRITE", "PLAY_REWRITE", "DEFAULT_STREAM", "PUSH_OUT_START"}
    assert {name for name, want in wanted.items() if want.default == triggers.UNUSABLE} == rewrites
    assert all(want.is_sync for name, want in wanted.items() if want.default != triggers.OPEN)
    of_controller_or_buffer = {
        "STREAM_END",
        "PUSH_END",
        "STREAM_ADD",
        "SYSTEM_START",
        "SYSTEM_STOP",
        "STREAM_BUFFER",
        "LIVE_TRACK_LIST",
    }
    assert not any(wanted[name].is_sync for name in of_controller_or_buffer)
    assert wanted["STREAM_SOURCE"].default == "push://"
    assert wanted["STREAM_SOURCE"].is_ours_only
    assert triggers.wanted(is_fork=False, viewers_when_down="closed")["USER_NEW"].default == "false"


def test_while_we_are_away_nobody_publishes_and_viewers_are_shown_what_is_there() -> None:
    class Away:
        def post(self, post: Any) -> None:
            from tests.mist.wire import Failed

            raise Failed(is_refused=True)

    mist = MistServer(Away())
    carried_out(mist, DESIRED)
    assert mist.publish("sk_whatever").refusal is not None
    mist.state.streamkeys["own"] = "live+cam1"
    assert mist.publish("own").refusal is None  # the server's own keys are the operator's affair


def test_what_is_not_ours_stays_and_ours_is_asked_last() -> None:
    mist = MistServer()
    theirs = {"handler": "http://other/x", "sync": True, "streams": ["vod"], "default": "false", "note": 7}
    array = ["http://other/y", True, ["vod"]]
    mist.call(
        {
            "config": {
                "triggers": {"USER_NEW": [theirs], "PUSH_REWRITE": [array], "LIVE_BANDWIDTH": [theirs]},
                "prometheus": "own",
            },
            "addstream": {"vod": {"source": "/media/$wildcard"}, "live": {"source": "push://", "DVR": 60000, "tags": ["a"]}},
        }
    )
    carried_out(mist, DESIRED)
    after = observed(mist)
    section = after.config.triggers
    assert section is not None
    assert section["USER_NEW"][0] == theirs
    assert section["PUSH_REWRITE"][0] == array
    assert section["LIVE_BANDWIDTH"] == [theirs]
    assert [len(section[name]) for name in ("USER_NEW", "PUSH_REWRITE")] == [2, 2]
    assert after.config.prometheus == "own"
    assert after.streams["live"] == {"name": "live", "online": 0, "source": "push://", "DVR": 60000, "tags": ["a"]}
    assert after.streams["vod"]["source"] == "/media/$wildcard"
    mist.call({"config": {"triggers": {**section, "USER_NEW": list(reversed(section["USER_NEW"]))}}})
    [step] = plan(DESIRED, observed(mist))
    assert "last" in step.sentence


def test_handlers_of_ours_at_an_older_address_and_doubled_ones_are_taken_away() -> None:
    mist = MistServer()
    carried_out(mist, Desired("http://127.0.0.1:9999"))
    moved = Desired(URL, former_urls=("http://127.0.0.1:9999",))
    carried_out(mist, moved)
    assert "9999" not in str(observed(mist).config.triggers)
    section = dict(observed(mist).config.triggers or {})
    section["USER_END"] = [*section["USER_END"], *section["USER_END"]]
    section["LIVE_BANDWIDTH"] = [{"handler": f"{URL}/trigger/LIVE_BANDWIDTH", "sync": True}]
    mist.call({"config": {"triggers": section}})
    assert {step.name for step in plan(moved, observed(mist))} == {"trigger USER_END", "trigger LIVE_BANDWIDTH"}
    carried_out(mist, moved)
    assert "LIVE_BANDWIDTH" not in observed(mist).config.handlers()


def test_somebody_elses_live_stream_is_not_taken_but_said() -> None:
    mist = MistServer()
    mist.call({"addstream": {"live": {"source": "/media/loop.mkv"}, "unusable": {"source": "push://"}}})
    carried_out(mist, DESIRED)
    found = observed(mist)
    assert found.streams["live"]["source"] == "/media/loop.mkv"
    first, second = problems(DESIRED, found)
    assert "'unusable'" in first
    assert "/media/loop.mkv" in second


def test_private_viewers_are_counted_only_when_asked_for() -> None:
    mist = MistServer()
    before = observed(mist).exceptions
    carried_out(mist, DESIRED)
    assert observed(mist).exceptions == before
    carried_out(mist, Desired(URL, counts_private=True))
    assert observed(mist).exceptions == COUNT_ALL


def test_session_modes_are_put_right_where_they_differ() -> None:
    mist = MistServer()
    mist.call({"config": {"sessionViewerMode": 1}})
    steps = [step for step in plan(DESIRED, observed(mist)) if step.name.startswith("mode")]
    assert [step.sentence for step in steps] == [
        "set sessionViewerMode to 14 instead of 1, because sessions are told apart by it"
    ]


def test_a_url_that_would_be_cut_off_is_refused() -> None:
    assert url_problem("http://127.0.0.1:18007") is None
    assert url_problem("http://" + "h" * 76) is None
    too_long = "http://" + "h" * 77
    assert "cut it off" in (url_problem(too_long) or "")
    assert problems(Desired(too_long), FRESH)
    barely = plan(Desired("http://" + "h" * 76), replace(FRESH, is_fork=True))
    handlers = [written(step)[step.name.split()[1]][-1]["handler"] for step in barely if step.name.startswith("trigger")]
    assert max(map(len, handlers)) == 127


def test_a_real_servers_recorded_configuration_gets_our_handlers_beside_its_own() -> None:
    found = Observed(config.read(reply("config", "read config")), {"live": {"source": "push://"}})
    steps = plan(DESIRED, found)
    assert {step.name for step in steps} == {f"trigger {name}" for name in triggers.STOCK}
    for step in steps:
        name = step.name.split()[1]
        section = written(step)
        assert set(section) == set(found.config.triggers or {})
        assert len(section[name]) == 2
        assert {other for other in section if section[other] != (found.config.triggers or {})[other]} == {name}


HANDLERS = st.one_of(
    st.none(),
    st.integers(),
    st.just("http://x"),
    st.lists(st.one_of(st.booleans(), st.text(max_size=5)), max_size=3),
    st.dictionaries(
        st.sampled_from(["handler", "sync", "streams", "default", "odd"]),
        st.one_of(st.booleans(), st.text(max_size=9)),
        max_size=4,
    ),
)


@given(st.dictionaries(st.sampled_from(["USER_NEW", "PUSH_REWRITE", "NO_SUCH"]), st.lists(HANDLERS, max_size=3), max_size=3))
def test_whatever_stands_there_is_written_back_as_it_was(section: dict[str, list[Any]]) -> None:
    found = Observed(config.Config(version="3.10", prometheus="x", triggers=section), {"live": {"source": "push://"}})
    for step in plan(DESIRED, found):
        for name, handlers in section.items():
            assert written(step)[name][: len(handlers)] == handlers
