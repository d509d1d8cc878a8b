"""What the media server is answered about viewers, and where it gets a stream from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest

from edge_agent.questions import AskTenant, Question, Reply
from edge_agent.trigger import Trigger
from edge_agent.turn import Site
from edge_agent.viewers import FoundSession, appear
from streams.generated import (
    AdmissionBasis,
    EdgeAction,
    KickedSession,
    NodeMode,
    NodePolicy,
    PlaybackKind,
    Policy,
    StreamPolicy,
    TenantStanding,
    ViewerEnd,
    ViewerJoined,
    ViewerLeft,
    ViewerRejected,
    ViewerRejection,
)
from streams.ids import OPERATOR_TENANT
from streams.playback.rules import WebhookSaid
from tests.edge_node import NOON_MS, SESSION, STREAM, TENANT, AgentUnderTest, stream_policy
from tests.playback import playback, signing_key, tenant_policy, token

URL = "http://127.0.0.1:18080/hls/live%2blobby/index.m3u8"
FETCH = "dtsc://10.77.0.2/live%2blobby?version=MistServer%2f3.10"  # as one media server asks another for a stream
HOOK = "https://tenant.example/play?x=1"
Reason = ViewerRejection


def join(agent: AgentUnderTest, number: int = 0, tkn: str = "113304752", url: str = URL, address: str = "127.0.1.1") -> str:
    """A viewer of their own for each number."""
    return agent.send("USER_NEW", f"live+lobby\n{address}\n{tkn}\nHLS\n{url}\n{session(number)}\nfalse", pid=700 + number)


def recheck(agent: AgentUnderTest, number: int = 0, tkn: str = "113304752") -> str:
    return agent.send("USER_NEW", f"live+lobby\n127.0.1.1\n{tkn}\nHLS\n{URL}\n{session(number)}", pid=700 + number)


def leave(agent: AgentUnderTest, number: int = 0) -> None:
    text = f"1\nlive+lobby\nHLS\n127.0.1.1\n14\n872971\n2402\n\n14\n14\n14\n{session(number)}"
    agent.send("USER_END", text, pid=700 + number)


def session(number: int) -> str:
    return f"{number:064x}" if number else SESSION


def rejections(agent: AgentUnderTest) -> list[ViewerRejection]:
    return [f.reason for f in agent.said() if isinstance(f, ViewerRejected)]


def with_policy(*policies: Policy, country: str | None = None) -> AgentUnderTest:
    return AgentUnderTest(policies, country=country)


def test_a_good_token_is_named_as_the_basis_and_names_the_viewer() -> None:
    agent = with_policy(playback(PlaybackKind.JWT, version=9), tenant_policy(signing_key(), version=4))
    assert join(agent, tkn=token(sub="pblobby", viewer="anna")) == "true"
    [joined] = agent.said()
    assert isinstance(joined, ViewerJoined)
    assert (joined.basis, joined.policy_version, joined.tenant_policy_version) == (AdmissionBasis.JWT, 9, 4)
    plain, person = agent.opened(joined, "subject")
    assert (plain, person.subject) == (b"anna", "anna")


def test_a_refused_viewer_is_no_viewing_and_is_told_why() -> None:
    agent = with_policy(playback(PlaybackKind.JWT, version=9), tenant_policy(signing_key()))
    assert join(agent, tkn=token(exp=1)) == "false"
    leave(agent)
    [rejected] = agent.said()
    assert isinstance(rejected, ViewerRejected)
    assert (rejected.reason, rejected.policy_version, rejected.viewing_id) == (Reason.TOKEN_EXPIRED, 9, None)
    assert rejected.detail == "the token has expired (`exp`)"
    assert not len(agent.agent.state.viewings)


def test_no_token_and_no_url_of_a_viewer_is_in_a_fact() -> None:
    text = token(sub="pblobby", viewer="anna")
    agent = with_policy(playback(PlaybackKind.JWT), tenant_policy(signing_key()))
    join(agent, tkn=text)
    join(agent, 1, tkn=text[:-3] + "AAA")
    assert text[:30] not in repr(agent.facts)
    assert text.split(".")[1] not in repr(agent.facts)


def test_countries_are_those_of_the_address() -> None:
    assert join(with_policy(playback(allowed_countries=("NL",)), country="NL")) == "true"
    agent = with_policy(playback(allowed_countries=("NL",)), country="DE")
    assert join(agent) == "false"
    assert rejections(agent) == [Reason.COUNTRY_NOT_ALLOWED]


def test_the_cap_counts_open_viewings_of_the_stream_on_the_node() -> None:
    agent = with_policy(playback(max_viewers=2))
    assert [join(agent, n) for n in (1, 2, 3)] == ["true", "true", "false"]
    assert join(agent, 2) == "true"  # the same session again: it takes its own place
    leave(agent, 1)
    assert [join(agent, 4), join(agent, 5)] == ["true", "false"]
    agent.restart()
    assert join(agent, 6) == "false"
    assert set(rejections(agent)) == {Reason.VIEWER_LIMIT_REACHED}


def test_a_cap_that_sinks_cuts_as_many_as_are_too_many() -> None:
    agent = with_policy(playback(max_viewers=None))
    assert {join(agent, n) for n in range(1, 11)} == {"true"}
    agent.policy.update([playback(max_viewers=4, version=2)], agent.now_ms)
    answers = [recheck(agent, n) for n in range(1, 11)]
    assert answers.count("true") == 4
    assert agent.agent.state.viewers(STREAM) == 4
    cut = [f for f in agent.said() if isinstance(f, ViewerLeft)]
    assert [(f.end_reason, f.synthesized) for f in cut] == [(ViewerEnd.REVOKED, True)] * 6


def test_a_kicked_session_is_refused_while_it_lasts() -> None:
    until = datetime.fromtimestamp(NOON_MS / 1000 + 60, UTC)
    agent = with_policy(replace(stream_policy(), kicked=(KickedSession(session(1), until, UUID(int=1)),)))
    assert [join(agent, 1), join(agent, 2)] == ["false", "true"]
    agent.now_ms += 60_000
    assert join(agent, 1) == "true"
    assert rejections(agent) == [Reason.KICKED]


@pytest.mark.parametrize(
    ("mode", "new", "again"),
    [(NodeMode.ACTIVE, "true", "true"), (NodeMode.DRAINING, "false", "true"), (NodeMode.MAINTENANCE, "false", "false")],
)
def test_the_nodes_mode(mode: NodeMode, new: str, again: str) -> None:
    agent = with_policy(stream_policy())
    assert join(agent, 1) == "true"
    agent.policy.update([NodePolicy(OPERATOR_TENANT, "edge-1", 1, mode)], agent.now_ms)
    assert [join(agent, 2), recheck(agent, 1)] == [new, again]


def test_a_suspended_tenant_is_not_watched() -> None:
    agent = with_policy(stream_policy(), tenant_policy(standing=TenantStanding.SUSPENDED))
    assert join(agent) == "false"
    assert rejections(agent) == [Reason.TENANT_SUSPENDED]


# The tenant's server.


def asking(said: bool | None, stream: StreamPolicy | None = None) -> AgentUnderTest:
    def reply(question: Question) -> Reply:
        assert isinstance(question, AskTenant)
        return WebhookSaid(said, "it is silent")

    policy = stream or playback(PlaybackKind.WEBHOOK, webhook_url=HOOK, open_when_unavailable=False)
    return AgentUnderTest([policy], reply=reply, country="NL")


@pytest.mark.parametrize(("said", "expected"), [(True, "true"), (False, "false"), (None, "false")])
def test_the_tenants_server_decides(said: bool | None, expected: str) -> None:
    agent = asking(said)
    url = f"{URL}?ticket=a%20b&origin=https%3A%2F%2Fa.org"
    assert join(agent, 1, tkn="abc", url=url) == expected
    [question] = agent.asked
    assert isinstance(question, AskTenant)
    assert (question.tenant_id, question.url) == (TENANT, HOOK)
    assert orjson.loads(question.body) == {
        "type": "playback.requested",
        "streamId": str(STREAM),
        "playbackId": "pblobby",
        "nodeId": "edge-1",
        "sessionId": session(1),
        "connector": "HLS",
        "address": "127.0.1.1",
        "country": "NL",
        "origin": "https://a.org",
        "token": "abc",
        "parameters": {"ticket": "a b", "origin": "https://a.org"},
    }
    [fact] = agent.said()
    if said:
        assert isinstance(fact, ViewerJoined)
        assert fact.basis is AdmissionBasis.WEBHOOK
    else:
        assert rejections(agent) == [Reason.WEBHOOK_UNAVAILABLE if said is None else Reason.WEBHOOK_DENIED]
    assert "ticket" not in repr(agent.facts)
    assert "abc" not in repr(question)


def test_a_server_that_is_silent_opens_where_the_policy_says_so() -> None:
    agent = asking(None, playback(PlaybackKind.WEBHOOK, webhook_url=HOOK, open_when_unavailable=True))
    assert join(agent) == "true"
    [joined] = agent.said()
    assert isinstance(joined, ViewerJoined)
    assert joined.basis is AdmissionBasis.OPEN_WHEN_UNAVAILABLE


def test_what_the_policy_says_itself_is_not_asked() -> None:
    agent = asking(True, playback(PlaybackKind.WEBHOOK, webhook_url=HOOK, blocked_countries=("NL",)))
    assert join(agent) == "false"
    assert agent.asked == []


def test_a_policy_that_changes_while_the_server_is_asked_counts() -> None:
    agent = asking(True)
    body = f"live+lobby\n127.0.1.1\nabc\nHLS\n{URL}\n{SESSION}\nfalse".encode()
    trigger = Trigger("USER_NEW", body, "u1", "InstanceA", 7, agent.now_ms)
    question = agent.agent.handle(trigger, agent.now_ms).question
    assert question is not None
    agent.policy.update([stream_policy(deleted=True)], agent.now_ms)
    outcome = agent.agent.handle(trigger, agent.now_ms, {question: WebhookSaid(True)})
    assert outcome.answer == "false"


@pytest.mark.parametrize(
    "url", ["", "http://[bad", "http://h/?" + "&".join(f"a{n}=1" for n in range(100)), "http://h/?a=" + "x" * 9000]
)
def test_any_url_can_be_put_into_the_question(url: str) -> None:
    agent = asking(True)
    assert join(agent, url=url) == "true"
    [question] = agent.asked
    assert isinstance(question, AskTenant)
    assert len(question.body) < 20_000


# Sessions that nobody asked about.


def found(agent: AgentUnderTest, number: int = 1, stream: str = "live+lobby") -> object:
    name = session(number)
    trigger = Trigger("POLL", b"", f"session {name}", "InstanceA", 0, agent.now_ms)
    turn = agent.agent.turn(trigger, agent.now_ms)
    viewing = appear(turn, FoundSession(name, stream, "HLS", "127.0.1.1", agent.now_ms - 5000, "the API lists it"))
    agent.facts += turn.facts
    return viewing


def test_a_session_that_the_media_server_let_in_by_itself_is_a_viewing() -> None:
    agent = with_policy(playback(PlaybackKind.JWT))
    assert found(agent)
    assert found(agent) is None  # it is one already
    leave(agent, 1)
    joined, left = agent.said()
    assert isinstance(joined, ViewerJoined)
    assert isinstance(left, ViewerLeft)
    assert joined.basis is AdmissionBasis.MEDIA_SERVER
    assert (left.viewing_id, left.seconds, left.synthesized) == (joined.viewing_id, 14, False)
    assert not len(agent.agent.state.actions)


def test_one_that_may_not_watch_is_to_be_stopped() -> None:
    until = datetime.fromtimestamp(NOON_MS / 1000 + 60, UTC)
    agent = with_policy(replace(stream_policy(), kicked=(KickedSession(session(1), until, UUID(int=1)),)))
    assert found(agent)
    [action] = agent.agent.state.actions
    assert (action.action, action.session_id, action.stream) == (EdgeAction.STOP_VIEWER, session(1), "live+lobby")


def test_sessions_of_other_streams_are_the_operators_own() -> None:
    agent = with_policy(stream_policy())
    assert found(agent, stream="copy") is None
    assert found(agent, stream="live+unknown") is None
    assert agent.said() == []


# Names, connections, sources.


@pytest.mark.parametrize(
    ("stream", "url", "expected"),
    [
        ("pblobby", URL, "live+lobby"),
        ("live+pblobby", URL, "live+lobby"),
        ("live+lobby", URL, "live+lobby"),
        ("pblobby", "", "pblobby"),
        ("live+lobby", "", "live+lobby"),
        ("copy", URL, "copy"),
        ("live+unknown", URL, "live+unknown"),
        ("", "", ""),
    ],
)
def test_a_playback_id_becomes_the_streams_name(stream: str, url: str, expected: str) -> None:
    assert with_policy(stream_policy()).send("PLAY_REWRITE", f"{stream}\n127.0.1.1\nHLS\n{url}") == expected


@pytest.mark.parametrize(
    ("policies", "body", "expected"),
    [
        ([stream_policy()], f"live+lobby\n127.0.1.1\nHLS\n{URL}", "true"),
        ([stream_policy(deleted=True)], f"live+lobby\n127.0.1.1\nHLS\n{URL}", "false"),
        ([stream_policy(deleted=True)], "live+lobby\n\nEBML\n", "true"),  # a recording
        ([replace(stream_policy(), disabled=True)], "live+lobby\n127.0.0.1\nRTMP\n", "true"),  # a push
        ([replace(stream_policy(), disabled=True)], f"live+lobby\n127.0.1.1\nHLS\n{URL}", "false"),
        ([stream_policy(), tenant_policy(standing=TenantStanding.SUSPENDED)], f"live+lobby\n1.2.3.4\nHLS\n{URL}", "false"),
        ([playback(blocked_countries=("NL",))], f"live+lobby\n1.2.3.4\nHLS\n{URL}", "false"),
        ([playback(PlaybackKind.JWT)], f"live+lobby\n1.2.3.4\nHLS\n{URL}", "true"),  # USER_NEW has the token
        ([playback(blocked_countries=("NL",))], f"live+lobby\n10.1.2.3\nDTSC\n{FETCH}", "true"),  # another node
        ([playback(PlaybackKind.JWT)], f"live+lobby\n10.1.2.3\nDTSC\n{FETCH}", "true"),
        ([], f"copy\n1.2.3.4\nHLS\n{URL}", "true"),
    ],
)
def test_conn_play_refuses_what_nobody_may_watch(policies: list[Policy], body: str, expected: str) -> None:
    agent = AgentUnderTest(policies, country="NL", site=Site(peer_networks=("10.0.0.0/8",)))
    assert agent.send("CONN_PLAY", body) == expected
    assert agent.said() == []


def test_another_node_that_fetches_a_stream_is_no_viewer() -> None:
    agent = AgentUnderTest([playback(PlaybackKind.JWT)], site=Site(peer_networks=("10.0.0.0/8", "2001:db8::/32")))
    new = "live+lobby\n{}\n4711\n{}\ndtsc://node/live+lobby\n" + SESSION + "\nfalse"
    for address in ("10.1.2.3", "2001:db8::7", "::ffff:10.1.2.3"):
        assert agent.send("USER_NEW", new.format(address, "DTSC")) == "true"
    assert agent.said() == []
    assert agent.send("USER_NEW", new.format("10.1.2.3", "HLS")) == "false"
    assert agent.send("USER_NEW", new.format("11.1.2.3", "DTSC")) == "false"
    assert rejections(agent) == [Reason.TOKEN_MISSING] * 2


@pytest.mark.parametrize("connector", ["DTSC", "DTSCQuic"])
def test_a_media_server_that_is_no_node_fetches_only_what_everybody_may_watch(connector: str) -> None:
    """To the media server it is no viewer: USER_NEW is never asked of it (seen at MistServer 3.10)."""

    def fetch(url: str, *policies: Policy) -> tuple[str, int]:
        agent = AgentUnderTest(policies, site=Site(peer_networks=("10.0.0.0/8",)))
        outcome = agent.outcome("CONN_PLAY", f"live+lobby\n192.0.2.7\n{connector}\n{url}")
        assert outcome.facts == ()
        return outcome.answer, len(outcome.remarks)

    assert fetch(FETCH, playback(PlaybackKind.PUBLIC)) == ("true", 0)
    protected = playback(PlaybackKind.JWT)
    assert fetch(FETCH, protected) == ("false", 1)
    assert fetch(FETCH, protected, tenant_policy(signing_key())) == ("false", 1)
    assert fetch(f"{FETCH}&tkn={token(sub='pblobby')}", protected, tenant_policy(signing_key())) == ("true", 0)
    assert fetch(FETCH, playback(PlaybackKind.WEBHOOK, webhook_url="https://example.org/may")) == ("false", 1)
    assert fetch(FETCH, playback(allowed_origins=("https://example.org",))) == ("false", 1)


def test_the_source_of_a_stream_is_the_balancer_but_while_its_publisher_is_here() -> None:
    from tests.unit.test_edge_publishers import offer, push

    agent = AgentUnderTest(site=Site(balancer_url="http://balancer:8042"))
    balancer = "balance:http://balancer:8042/?fallback=push%3A%2F%2F"
    assert agent.send("STREAM_SOURCE", "live+lobby") == balancer
    assert agent.send("STREAM_SOURCE", "live+unknown") == ""
    assert agent.send("STREAM_SOURCE", "copy") == ""
    offer(agent)
    assert agent.send("STREAM_SOURCE", "live+lobby") == ""
    push(agent)
    assert agent.send("STREAM_SOURCE", "live+lobby") == ""
    agent.send("STREAM_BUFFER", "live+lobby\nEMPTY")
    assert agent.send("STREAM_SOURCE", "live+lobby") == balancer
    assert AgentUnderTest().send("STREAM_SOURCE", "live+lobby") == ""
