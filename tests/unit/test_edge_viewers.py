"""Viewings: joined and left once each, whatever the media server repeats, forgets or says late."""

from __future__ import annotations

import pytest

from streams.generated import TriggerInvalid, ViewerEnd, ViewerJoined, ViewerLeft, ViewerRejected, ViewerRejection
from tests.edge_node import SESSION, STREAM, AgentUnderTest, stream_policy

URL = "http://127.0.0.1:18080/hls/live%2blobby/index.m3u8"


def join(agent: AgentUnderTest, pid: int = 7, session: str = SESSION, stream: str = "live+lobby") -> str:
    return agent.send("USER_NEW", f"{stream}\n127.0.1.1\n113304752\nHLS\n{URL}\n{session}\nfalse", pid=pid)


def recheck(agent: AgentUnderTest, pid: int = 7) -> str:
    return agent.send("USER_NEW", f"live+lobby\n127.0.1.1\n113304752\nHLS\n{URL}\n{SESSION}", pid=pid)


def leave(agent: AgentUnderTest, pid: int = 7, stream: str = "live+lobby", seconds: int = 14) -> None:
    agent.send("USER_END", f"113304752\n{stream}\nHLS\n127.0.1.1\n{seconds}\n872971\n2402\n\n14\n14\n14\n{SESSION}", pid=pid)


def left(agent: AgentUnderTest) -> list[tuple[ViewerEnd, int, bool]]:
    return [(f.end_reason, f.seconds, f.synthesized) for f in agent.said() if isinstance(f, ViewerLeft)]


def viewings(agent: AgentUnderTest) -> list[str]:
    return [str(f.viewing_id) for f in agent.said() if isinstance(f, ViewerJoined | ViewerLeft)]


SEEN, SUPERSEDED = (ViewerEnd.DISCONNECTED, 14, False), (ViewerEnd.SUPERSEDED, 0, True)


def test_a_viewer_comes_and_goes() -> None:
    agent = AgentUnderTest()
    assert join(agent) == "true"
    leave(agent)
    assert left(agent) == [SEEN]
    assert len(set(viewings(agent))) == 1
    assert agent.facts[1][1].correlation_id == agent.facts[0][1].event_id


def test_a_recheck_that_is_passed_makes_no_fact() -> None:
    agent = AgentUnderTest()
    join(agent)
    assert recheck(agent) == "true"
    assert agent.names() == ["ViewerJoined"]


def test_a_recheck_that_is_not_passed_ends_the_viewing_once() -> None:
    agent = AgentUnderTest()
    join(agent)
    agent.policy.update([stream_policy(deleted=True)], agent.now_ms)
    assert [recheck(agent), recheck(agent)] == ["false", "false"]
    assert agent.names() == ["ViewerJoined", "ViewerLeft", "ViewerRejected"]
    joined, cut, rejected = agent.said()
    assert isinstance(joined, ViewerJoined)
    assert isinstance(cut, ViewerLeft)
    assert isinstance(rejected, ViewerRejected)
    assert joined.viewing_id == cut.viewing_id == rejected.viewing_id
    assert (cut.end_reason, cut.synthesized) == (ViewerEnd.REVOKED, True)
    assert rejected.reason is ViewerRejection.STREAM_DELETED
    leave(agent)  # the viewer that was cut has still watched
    assert left(agent)[-1] == SEEN


@pytest.mark.parametrize("stream", ["live+nobody", "live+"])
def test_a_viewer_of_a_stream_that_does_not_exist_is_refused_and_no_viewing(stream: str) -> None:
    agent = AgentUnderTest()
    assert join(agent, stream=stream) == "false"
    [fact] = agent.said()
    assert isinstance(fact, ViewerRejected)
    assert fact.reason is ViewerRejection.STREAM_NOT_FOUND
    leave(agent, stream="", seconds=0)  # 10 minutes later (CONTRACT 6.5)
    leave(agent, stream="live+nobody", seconds=0)
    assert len(agent.said()) == 1


def test_a_viewer_of_a_deleted_stream_is_refused_and_its_stopped_session_is_no_viewing() -> None:
    agent = AgentUnderTest([stream_policy(deleted=True)])
    assert join(agent) == "false"
    assert agent.facts[0][1].aggregate_id == STREAM
    leave(agent, seconds=0)  # stopped through the API, with its stream line
    assert agent.names() == ["ViewerRejected"]


def test_the_operators_own_streams_are_none_of_our_business() -> None:
    agent = AgentUnderTest()
    assert join(agent, stream="copy") == "true"
    leave(agent, stream="copy")
    assert agent.names() == []


def test_the_same_session_again_after_it_left_is_another_viewing() -> None:
    agent = AgentUnderTest()
    for _ in range(2):
        join(agent)
        leave(agent)
    assert left(agent) == [SEEN, SEEN]
    assert len(set(viewings(agent))) == 2


def test_the_same_session_from_another_process_supersedes_the_first() -> None:
    """The session process was killed: no USER_END of it ever comes (CONTRACT 5)."""
    agent = AgentUnderTest()
    join(agent, pid=7)
    join(agent, pid=8)
    leave(agent, pid=8)
    assert left(agent) == [SUPERSEDED, SEEN]
    first, second = (f.viewing_id for f in agent.said() if isinstance(f, ViewerJoined))
    assert [f.viewing_id for f in agent.said() if isinstance(f, ViewerLeft)] == [first, second]


def test_ends_pair_by_process_first() -> None:
    agent = AgentUnderTest()
    join(agent, pid=7)
    join(agent, pid=8)
    leave(agent, pid=7)  # it was not killed after all: its own word counts, under its own id
    leave(agent, pid=8)
    joined = [f.viewing_id for f in agent.said() if isinstance(f, ViewerJoined)]
    ended = [f.viewing_id for f in agent.said() if isinstance(f, ViewerLeft) and not f.synthesized]
    assert ended == joined


def test_an_end_from_an_unknown_process_ends_the_oldest_open_one() -> None:
    agent = AgentUnderTest()
    join(agent, pid=7)
    leave(agent, pid=99)
    assert left(agent) == [SEEN]
    assert len(set(viewings(agent))) == 1


def test_an_end_without_a_beginning_is_a_viewing_whose_join_was_not_seen() -> None:
    agent = AgentUnderTest()
    leave(agent)
    [fact] = agent.said()
    assert isinstance(fact, ViewerLeft)
    assert (fact.joined_at, fact.seconds, fact.up_bytes) == (None, 14, 872971)


def test_stream_end_and_restart_conclude_and_a_late_end_still_counts() -> None:
    agent = AgentUnderTest()
    join(agent)
    agent.send("STREAM_END", "live+lobby\n1\n2\n1\n1\n0\n14", pid=9)
    agent.send("SYSTEM_START", "3.10", pid=9)
    leave(agent)
    assert left(agent) == [(ViewerEnd.STREAM_ENDED, 0, True), SEEN]
    assert len(set(viewings(agent))) == 1


def test_a_restart_of_the_server_concludes_what_was_open() -> None:
    agent = AgentUnderTest()
    join(agent)
    agent.send("SYSTEM_START", "3.10", pid=9)
    join(agent, pid=8)  # players that retry come with their old session id
    leave(agent, pid=8)
    assert left(agent) == [(ViewerEnd.NODE_RESTARTED, 0, True), SEEN]
    assert len(set(viewings(agent))) == 2


def test_concluded_viewings_are_forgotten_after_hours() -> None:
    agent = AgentUnderTest()
    join(agent)
    agent.send("STREAM_END", "live+lobby\n1\n2\n1\n1\n0\n14", pid=9)
    agent.agent.sweep(agent.now_ms + 5 * 3_600_000)
    assert len(agent.agent.state.viewings) == 1
    agent.agent.sweep(agent.now_ms + 7 * 3_600_000)
    assert len(agent.agent.state.viewings) == 0


@pytest.mark.parametrize(
    "body",
    [
        f"live+lobby\n127.0.1.1\ntok en\n1\nHTTPTS\n{URL}\n{SESSION}\nfalse",  # a newline in the token (CONTRACT 1)
        f"live+lobby\n127.0.1.1\ntok en\n1\nHTTPTS\n{URL}\n{SESSION}",  # in the token of a re-check: 7 lines, but not those
        "live+lobby",
        "",
    ],
)
def test_an_injected_newline_opens_nothing(body: str) -> None:
    agent = AgentUnderTest()
    assert agent.send("USER_NEW", body) == "false"
    [fact] = agent.said()
    assert isinstance(fact, TriggerInvalid)
    assert not body or agent.opened(fact, "sealed_body")[0] == body.encode()


END_LINES = f"live+lobby\nHLS\n127.0.1.1\n14\n1\n2\n\n14\n14\n14\n{SESSION}"


@pytest.mark.parametrize("token", ["tok\nen", "\n", "a\nb\nc", "x\nlive+lobby\nHLS\n127.0.1.1\n99\n9\n9\n\n9\n9\n9\n" + "b" * 64])
def test_a_newline_in_the_token_hides_no_end(token: str) -> None:
    """The token is the first line: whatever was typed into it, the media server's words are the last eleven."""
    agent = AgentUnderTest()
    join(agent)
    agent.send("USER_END", f"{token}\n{END_LINES}")
    assert agent.names() == ["ViewerJoined", "ViewerLeft"]
    [left] = agent.said(ViewerLeft)
    assert isinstance(left, ViewerLeft)
    assert (left.seconds, left.up_bytes, left.down_bytes) == (14, 1, 2)


def test_a_shifted_end_of_a_session_that_nobody_knows_is_kept_raw() -> None:
    agent = AgentUnderTest()
    agent.send("USER_END", f"tok\nen\n{END_LINES}")
    assert agent.names() == ["TriggerInvalid"]


def test_a_viewer_who_was_refused_for_a_newline_is_no_session_when_stopped() -> None:
    agent = AgentUnderTest()
    assert agent.send("USER_NEW", f"live+lobby\n127.0.9.1\ntok en\n1\nHTTPTS\n{URL}\n{SESSION}\nfalse") == "false"
    agent.send("USER_END", f"tok\n{END_LINES}")
    assert agent.names() == ["TriggerInvalid"]


def test_playback_ids_become_streams_and_everything_else_stays() -> None:
    agent = AgentUnderTest()
    for name, answer in (("pblobby", "live+lobby"), ("live+lobby", "live+lobby"), ("copy", "copy"), ("nobody", "nobody")):
        assert agent.send("PLAY_REWRITE", f"{name}\n127.0.1.1\nHLS\n{URL}") == answer
    assert agent.send("PLAY_REWRITE", "live+lobby\n\nEBML\n") == "live+lobby"  # a recording: no address, no URL
    assert agent.send("PLAY_REWRITE", f"live+lobby\nx\n127.0.9.3\nHTTPTS\n{URL}") == "unusable"
    assert agent.names() == ["TriggerInvalid"]
