"""Who may publish, when a publisher stands in another's way, and how each publishing ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.policy import PolicyTable
from streams.generated import IngestEnded, IngestRejected, IngestRejection, IngestStarted, TriggerInvalid
from streams.ids import OPERATOR_TENANT, derive, node_uuid
from tests.edge_node import KEY, NOON_MS, STREAM, TENANT, AgentUnderTest, stream_key, stream_policy

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
OLD_KEY = "sk_oldoldol_0123456789abcdefghijkl"
OTHER = derive(TENANT, "other stream")
EMPTY = "live+lobby\nEMPTY"


def url(key: str = KEY) -> str:
    return f"rtmp://127.0.0.1:1935/live/{key}"


def offer(agent: AgentUnderTest, key: str = KEY, pid: int = 100) -> tuple[str, str]:
    """Answers to both rewrites."""
    first = agent.send("RTMP_PUSH_REWRITE", f"{url(key)}\n10.0.0.1", pid=pid)
    return first, agent.send("PUSH_REWRITE", f"{url(key)}\n10.0.0.1\n{key}", pid=pid)


def push(agent: AgentUnderTest, pid: int = 100, key: str = KEY) -> str:
    return agent.send("STREAM_PUSH", f"live+lobby\n10.0.0.1\nRTMP\n{url(key)}", pid=pid)


def on_air(agent: AgentUnderTest, pid: int = 100) -> None:
    assert offer(agent, pid=pid) == (url(), "live+lobby")
    assert push(agent, pid) == "true"


def leave(agent: AgentUnderTest, pid: int = 100, code: str = "CLEAN_INTENDED_STOP") -> None:
    text = f"live+lobby\n\nRTMP\n3740\n30\n1795174890\n1795174920\n0\n18446744073709551615\n0\n{code}\nreceived deleteStream\n"
    agent.send("OUTPUT_END", text, pid=pid)


def reasons(agent: AgentUnderTest) -> list[IngestRejection]:
    return [f.reason for f in agent.said() if isinstance(f, IngestRejected)]


def endings(agent: AgentUnderTest) -> list[tuple[str, bool]]:
    return [(f.end_reason, f.synthesized) for f in agent.said() if isinstance(f, IngestEnded)]


def test_a_good_key_becomes_the_stream() -> None:
    agent = AgentUnderTest()
    on_air(agent)
    assert agent.names() == ["IngestStarted"]
    [(_, meta)] = agent.facts
    assert (meta.tenant_id, meta.aggregate_id, meta.actor) == (TENANT, STREAM, "node:edge-1")
    assert meta.event_id == meta.correlation_id == meta.causation_id


def test_an_unknown_key_is_refused_once_whatever_the_connection_goes_on_to_send() -> None:
    agent = AgentUnderTest()
    assert offer(agent, "sk_abcd2345_wrong") == ("", "")
    assert push(agent, key="sk_abcd2345_wrong") == "false"
    assert reasons(agent) == [IngestRejection.UNKNOWN_KEY]
    [(fact, meta)] = agent.facts
    assert isinstance(fact, IngestRejected)
    assert fact.key_redacted == "sk_abcd2345"
    assert (meta.tenant_id, meta.aggregate_id) == (OPERATOR_TENANT, node_uuid("edge-1"))


@pytest.mark.parametrize("between", ["CONN_CLOSE", "CONN_OPEN"])
def test_the_next_connection_of_the_same_process_number_is_judged_anew(between: str) -> None:
    agent = AgentUnderTest()
    offer(agent, "nonsense")
    agent.send(between, "\n10.0.0.1\nRTMP\n")
    on_air(agent)


def test_a_name_of_a_stream_is_no_key() -> None:
    agent = AgentUnderTest()
    assert offer(agent, "live+lobby") == ("", "")
    assert reasons(agent) == [IngestRejection.UNKNOWN_KEY]


def test_parameters_behind_a_key_are_not_part_of_it() -> None:
    agent = AgentUnderTest()
    assert agent.send("RTMP_PUSH_REWRITE", f"{url()}?a=b\n10.0.0.1") == f"{url()}?a=b"
    assert agent.send("PUSH_REWRITE", f"{url()}?a=b\n10.0.0.1\n{KEY}?a=b") == "live+lobby"


def test_a_rotated_key_works_until_its_grace_ends() -> None:
    until = NOON + timedelta(seconds=60)
    agent = AgentUnderTest([stream_policy(stream_key(KEY), stream_key(OLD_KEY, until))])
    assert offer(agent, OLD_KEY)[1] == "live+lobby"
    agent.send("CONN_CLOSE", "live+lobby\n10.0.0.1\nRTMP\n")
    agent.now_ms += 60_000
    assert offer(agent, OLD_KEY) == ("", "")
    assert reasons(agent) == [IngestRejection.KEY_EXPIRED]
    assert agent.facts[-1][1].aggregate_id == STREAM  # attributed: the stream's owner wants to know


def test_a_key_that_the_policy_no_longer_names_is_expired_not_unknown() -> None:
    agent = AgentUnderTest([stream_policy(stream_key(OLD_KEY))])
    agent.policy.update([stream_policy(stream_key(KEY))], agent.now_ms)
    assert offer(agent, OLD_KEY) == ("", "")
    assert reasons(agent) == [IngestRejection.KEY_EXPIRED]
    agent.policy.update([stream_policy(stream_key(KEY))], agent.now_ms)  # a later snapshot changes nothing of that
    assert agent.policy.verdict(OLD_KEY, agent.now_ms).refusal is IngestRejection.KEY_EXPIRED


def test_a_deleted_stream_is_refused_and_the_refusal_is_its_own() -> None:
    agent = AgentUnderTest([stream_policy(deleted=True)])
    assert offer(agent) == ("", "")
    assert reasons(agent) == [IngestRejection.STREAM_DELETED]
    assert agent.facts[-1][1].aggregate_id == STREAM


def test_a_stream_deleted_between_the_rewrite_and_the_push() -> None:
    agent = AgentUnderTest()
    offer(agent)
    agent.policy.update([stream_policy(deleted=True)], agent.now_ms)
    assert push(agent) == "false"
    assert reasons(agent) == [IngestRejection.STREAM_DELETED]


@pytest.mark.parametrize("is_on_air", [True, False])
def test_a_second_publisher_is_refused_while_the_first_is_there_or_coming(is_on_air: bool) -> None:
    agent = AgentUnderTest()
    on_air(agent, pid=1) if is_on_air else offer(agent, pid=1)
    assert offer(agent, pid=2) == ("", "")
    assert push(agent, pid=2) == "false"
    assert reasons(agent) == [IngestRejection.DUPLICATE_INGEST]
    assert agent.facts[-1][1].aggregate_id == STREAM


def test_an_admitted_publisher_that_never_comes_is_waited_for_half_a_minute() -> None:
    agent = AgentUnderTest()
    offer(agent, pid=1)
    agent.now_ms += 30_000
    on_air(agent, pid=2)


def test_an_admitted_publisher_that_leaves_makes_room_at_once() -> None:
    agent = AgentUnderTest()
    offer(agent, pid=1)
    agent.send("CONN_CLOSE", f"lobby\n10.0.0.1\nRTMP\n{url()}", pid=1)
    on_air(agent, pid=2)


def test_an_ended_publisher_makes_room() -> None:
    agent = AgentUnderTest()
    on_air(agent, pid=1)
    leave(agent, pid=1)
    on_air(agent, pid=2)
    assert endings(agent) == [("CLEAN_INTENDED_STOP", False)]


@pytest.mark.parametrize(
    ("trigger", "body"),
    [
        ("STREAM_BUFFER", EMPTY),
        ("STREAM_BUFFER", f"{EMPTY}\n30261"),
        ("STREAM_UNLOAD", "live+lobby\nBuffer\ncancelable"),
        ("STREAM_READY", "live+lobby\nBuffer"),
        ("STREAM_LOAD", "live+lobby"),
    ],
)
def test_a_publisher_whose_buffer_is_gone_does_not_block_and_is_concluded(trigger: str, body: str) -> None:
    agent = AgentUnderTest()
    on_air(agent, pid=1)
    agent.send(trigger, body, pid=50)
    assert endings(agent) == []
    on_air(agent, pid=2)
    assert endings(agent) == [("SOURCE_LOST", True)]


def test_a_late_word_on_a_concluded_publisher_comes_under_its_id() -> None:
    agent = AgentUnderTest()
    on_air(agent, pid=1)
    agent.send("SYSTEM_START", "3.10", pid=2)
    agent.send("SYSTEM_START", "3.10", pid=3)  # crashed and restarted twice; the publisher's process went on
    leave(agent, pid=1)
    assert endings(agent) == [("SOURCE_LOST", True), ("CLEAN_INTENDED_STOP", False)]
    assert len({f.ingest_id for f in agent.said() if isinstance(f, IngestEnded | IngestStarted)}) == 1


def test_stream_end_concludes_a_publisher_whose_buffer_is_gone() -> None:
    agent = AgentUnderTest()
    on_air(agent)
    agent.send("STREAM_BUFFER", EMPTY, pid=50)
    agent.send("STREAM_END", "live+lobby\n0\n0\n0\n1\n0\n0", pid=9)
    assert endings(agent) == [("SOURCE_LOST", True)]


def test_stream_end_alone_makes_room_but_ends_nobody() -> None:
    """All session processes may have died under a publisher that goes on; or its end was said while the agent was away."""
    agent = AgentUnderTest()
    on_air(agent, pid=1)
    agent.send("STREAM_END", "live+lobby\n0\n0\n0\n1\n0\n0", pid=9)
    assert endings(agent) == []
    leave(agent, pid=1)
    assert endings(agent) == [("CLEAN_INTENDED_STOP", False)]
    on_air(agent, pid=2)
    agent.send("STREAM_END", "live+lobby\n0\n0\n0\n1\n0\n0", pid=9)
    on_air(agent, pid=3)
    assert endings(agent)[1:] == [("SOURCE_LOST", True)]


def test_the_forks_own_word_ends_a_publisher_once() -> None:
    agent = AgentUnderTest()
    on_air(agent)
    agent.send("PUSH_INPUT_CLOSE", "live+lobby\n10.0.0.1\nRTMP\n100\nCLEAN_REMOTE_CLOSE\nconnection closed\n[]")
    leave(agent)
    assert endings(agent) == [("CLEAN_REMOTE_CLOSE", False)]


@pytest.mark.parametrize(
    ("trigger", "body", "answer"),
    [
        ("RTMP_PUSH_REWRITE", f"{url()}\ninjected\n10.0.0.1", ""),
        ("PUSH_REWRITE", f"{url()}\ninjected\n10.0.0.1\n{KEY}", ""),
        ("STREAM_PUSH", f"live+lobby\n10.0.0.1\nRTMP\n{url()}\ninjected", "false"),
        ("RTMP_PUSH_REWRITE", b"\xff\xfe\n10.0.0.1", ""),
    ],
)
def test_a_newline_in_a_key_opens_nothing(trigger: str, body: str | bytes, answer: str) -> None:
    agent = AgentUnderTest()
    assert agent.send(trigger, body) == answer
    assert agent.names() == ["TriggerInvalid", "IngestRejected"]
    assert reasons(agent) == [IngestRejection.MALFORMED_KEY]
    [invalid] = agent.said(TriggerInvalid)
    assert isinstance(invalid, TriggerInvalid)
    kept, _ = agent.opened(invalid, "sealed_body")
    assert KEY.encode() not in kept
    assert len(kept) == len(body)
    assert push(agent, key="") == "false"
    assert reasons(agent) == [IngestRejection.MALFORMED_KEY]


def test_a_push_without_a_rewrite_is_judged_by_the_key_in_its_url() -> None:
    agent = AgentUnderTest()
    assert push(agent) == "true"  # the agent came up between the two
    assert push(agent, pid=2, key="nonsense") == "false"
    assert reasons(agent) == [IngestRejection.UNKNOWN_KEY]


def test_without_any_policy_everybody_is_refused_and_it_is_said_aloud() -> None:
    agent = AgentUnderTest([])
    agent.agent.policy = PolicyTable()
    outcome = agent.outcome("PUSH_REWRITE", f"{url()}\n10.0.0.1\n{KEY}")
    assert outcome.answer == ""
    assert reasons(agent) == [IngestRejection.OTHER]
    assert "no policy" in outcome.remarks[0]


@pytest.mark.parametrize(("scheme", "protocol"), [("rtmp", "RTMP"), ("srt", "SRT"), ("whip", "WHIP"), ("", "OTHER")])
def test_the_protocol_of_a_refusal(scheme: str, protocol: str) -> None:
    agent = AgentUnderTest()
    agent.send("PUSH_REWRITE", f"{scheme}://127.0.0.1/x\n10.0.0.1\nnonsense")
    [fact] = agent.said(IngestRejected)
    assert isinstance(fact, IngestRejected)
    assert fact.protocol == protocol


@pytest.mark.parametrize(
    ("url", "connector", "protocol"),
    [
        (f"rtmp://127.0.0.1:1935/live/{KEY}", "RTMP", "RTMP"),
        (f"srt://127.0.0.1:8889?streamid={KEY}", "TSSRT", "SRT"),
        (f"https://127.0.0.1:8080/webrtc/{KEY}", "WebRTC", "WHIP"),
    ],
)
def test_a_protocol_has_one_name_whichever_trigger_says_it(url: str, connector: str, protocol: str) -> None:
    agent = AgentUnderTest()
    name = agent.send("PUSH_REWRITE", f"{url}\n10.0.0.1\n{KEY}", pid=1)
    assert agent.send("STREAM_PUSH", f"{name}\n10.0.0.1\n{connector}\n{url}", pid=1) == "true"
    assert agent.send("PUSH_REWRITE", f"{url}\n10.0.0.2\n{KEY}", pid=2) == ""  # a second one
    [started], [refused] = agent.said(IngestStarted), agent.said(IngestRejected)
    assert isinstance(started, IngestStarted)
    assert isinstance(refused, IngestRejected)
    assert (started.protocol, refused.protocol) == (protocol, protocol)


class TestAPushOfTheServerIntoItself:
    COPY = "rtmp://127.0.0.1:1935/live/copy"

    def test_is_let_through_while_that_push_runs(self) -> None:
        agent = AgentUnderTest()
        agent.send("PUSH_OUT_START", f"live+lobby\n{self.COPY}", pid=1)
        assert agent.send("RTMP_PUSH_REWRITE", f"{self.COPY}\n127.0.0.1", pid=2) == self.COPY
        assert agent.send("PUSH_REWRITE", f"{self.COPY}\n127.0.0.1\ncopy", pid=2) == "copy"
        assert agent.send("STREAM_PUSH", f"copy\n127.0.0.1\nRTMP\n{self.COPY}", pid=2) == "true"
        assert agent.names() == ["PushStarted"]

    @pytest.mark.parametrize(
        ("target", "address", "name"),
        [
            (COPY, "203.0.113.9", "copy"),  # from elsewhere
            ("rtmp://127.0.0.1:1935/live/copy2", "127.0.0.1", "copy"),  # not what was pushed
            (COPY, "127.0.0.1", "live+lobby"),  # into a stream of ours
        ],
    )
    def test_is_nothing_that_others_can_pretend(self, target: str, address: str, name: str) -> None:
        agent = AgentUnderTest()
        agent.send("PUSH_OUT_START", f"live+lobby\n{target}", pid=1)
        assert agent.send("PUSH_REWRITE", f"{self.COPY}\n{address}\n{name}", pid=2) == ""

    def test_with_variables_in_its_target(self) -> None:
        agent = AgentUnderTest()
        agent.send("PUSH_OUT_START", "live+lobby\nrtmp://127.0.0.1/x/$wildcard-copy", pid=1)
        copied = "rtmp://127.0.0.1/x/lobby-copy"
        assert agent.send("PUSH_REWRITE", f"{copied}\n127.0.0.1\nlobby-copy", pid=2) == "lobby-copy"


def test_streams_do_not_stand_in_each_others_way() -> None:
    other_key = "sk_zzzz2345_0123456789abcdefghijkl"
    agent = AgentUnderTest([stream_policy(), stream_policy(stream_key(other_key), stream_id=OTHER, name="stage")])
    on_air(agent, pid=1)
    assert offer(agent, other_key, pid=2)[1] == "live+stage"


def test_a_process_number_that_comes_again_ends_what_it_was() -> None:
    agent = AgentUnderTest()
    on_air(agent, pid=1)
    assert push(agent, pid=1) == "true"  # a publisher that says it twice is one
    assert len(agent.said(IngestStarted)) == 1
    on_air(agent, pid=1)
    assert len(agent.said(IngestStarted)) == 2
    assert endings(agent) == [("SOURCE_LOST", True)]
