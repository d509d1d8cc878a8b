"""Why a publisher is refused, and what the platform is asked before one is let in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_agent.agent import Agent
from edge_agent.catalogue import Entry
from edge_agent.node_state import Broadcast
from edge_agent.questions import AskLease, Question, Reply
from edge_agent.trigger import Trigger
from edge_agent.turn import Site
from streams.generated import (
    IngestLease,
    IngestRejected,
    IngestRejection,
    IngestStarted,
    NodeMode,
    NodePolicy,
    Policy,
    TenantStanding,
)
from streams.ids import OPERATOR_TENANT, derive
from streams.ingress.lease import LeaseAnswer, LeaseOutcome
from tests.edge_node import KEY, NOON_MS, STREAM, TENANT, AgentUnderTest, stream_key, stream_policy
from tests.playback import tenant_policy
from tests.unit.test_edge_publishers import leave, offer, on_air, push, reasons, url

Reason = IngestRejection
OTHER_KEY = "sk_otherkey_0123456789abcdefghijkl"
OTHER = stream_policy(stream_key(OTHER_KEY), stream_id=derive(TENANT, "other"), name="other")
OLD = datetime(2020, 1, 1, tzinfo=UTC)


def node(mode: NodeMode) -> NodePolicy:
    return NodePolicy(OPERATOR_TENANT, "edge-1", 1, mode)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([stream_policy(deleted=True)], Reason.STREAM_DELETED),
        ([replace(stream_policy(), disabled=True)], Reason.STREAM_DISABLED),
        ([stream_policy(), tenant_policy(standing=TenantStanding.SUSPENDED)], Reason.TENANT_SUSPENDED),
        ([stream_policy(), tenant_policy(standing=TenantStanding.PAYMENT_REQUIRED)], Reason.PAYMENT_REQUIRED),
        ([stream_policy(), tenant_policy(standing=TenantStanding.OTHER)], Reason.TENANT_SUSPENDED),
        ([stream_policy(), tenant_policy(max_live_streams=0)], Reason.STREAM_LIMIT_REACHED),
        ([stream_policy(), node(NodeMode.DRAINING)], Reason.NODE_DRAINING),
        ([stream_policy(), node(NodeMode.MAINTENANCE)], Reason.NODE_MAINTENANCE),
        ([stream_policy(stream_key(KEY, OLD))], Reason.KEY_EXPIRED),
        ([], Reason.UNKNOWN_KEY),
        ([stream_policy(), tenant_policy(), node(NodeMode.ACTIVE)], None),
    ],
)
def test_each_refusal_has_its_reason(policies: list[Policy], expected: IngestRejection | None) -> None:
    agent = AgentUnderTest(policies)
    if expected is None:
        on_air(agent)
        assert reasons(agent) == []
    else:
        assert offer(agent) == ("", "")
        assert push(agent) == "false"
        assert reasons(agent) == [expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (replace(stream_policy(), disabled=True), Reason.STREAM_DISABLED),
        (stream_policy(deleted=True), Reason.STREAM_DELETED),
        (tenant_policy(standing=TenantStanding.SUSPENDED), Reason.TENANT_SUSPENDED),
        (stream_policy(stream_key(KEY, OLD)), Reason.KEY_EXPIRED),
    ],
)
def test_what_changes_between_the_key_and_the_push_still_refuses(change: Policy, expected: IngestRejection) -> None:
    agent = AgentUnderTest()
    assert offer(agent) == (url(), "live+lobby")
    agent.policy.update([change], agent.now_ms)
    assert push(agent) == "false"
    assert reasons(agent) == [expected]


def test_a_policy_that_is_out_of_date_lets_nobody_publish_and_keeps_who_does() -> None:
    agent = AgentUnderTest([stream_policy(), OTHER])
    agent.policy.heard_ms = NOON_MS
    on_air(agent)
    agent.now_ms += 86_400_000
    assert push(agent) == "true"  # it goes on
    assert offer(agent, OTHER_KEY, pid=101) == ("", "")
    assert offer(agent, "sk_newnewne_0123456789abcdefghijkl", pid=102) == ("", "")
    assert reasons(agent) == [Reason.POLICY_STALE, Reason.POLICY_STALE]
    agent.policy.heard_ms = agent.now_ms
    assert offer(agent, OTHER_KEY, pid=103)[1] == "live+other"


def test_a_node_that_never_wrote_down_when_it_heard_of_the_platform_is_not_out_of_date() -> None:
    agent = AgentUnderTest()
    assert agent.policy.heard_ms is None
    agent.now_ms += 10 * 86_400_000
    on_air(agent)


def test_the_limit_counts_the_tenants_other_streams_on_the_node() -> None:
    agent = AgentUnderTest([stream_policy(), OTHER, tenant_policy(max_live_streams=1)])
    on_air(agent)
    assert offer(agent, OTHER_KEY, pid=101) == ("", "")
    assert reasons(agent) == [Reason.STREAM_LIMIT_REACHED]
    leave(agent)
    assert offer(agent, OTHER_KEY, pid=102)[1] == "live+other"
    assert offer(agent, KEY, pid=103) == ("", "")  # the other one is on its way


def test_facts_name_the_policies_that_decided() -> None:
    agent = AgentUnderTest([replace(stream_policy(), version=7), tenant_policy(version=3)])
    on_air(agent)
    offer(agent, pid=101)
    started, rejected = agent.said()
    assert isinstance(started, IngestStarted)
    assert isinstance(rejected, IngestRejected)
    assert (started.policy_version, started.tenant_policy_version) == (7, 3)
    assert (rejected.policy_version, rejected.tenant_policy_version) == (7, 3)
    assert rejected.reason is Reason.DUPLICATE_INGEST


def asking(outcome: LeaseOutcome, held_by: str | None = None, **more: Any) -> AgentUnderTest:
    def reply(question: Question) -> Reply:
        assert isinstance(question, AskLease)
        return LeaseAnswer(outcome, held_by)

    return AgentUnderTest(site=Site(asks_lease=True), reply=reply, **more)


def lease_of(agent: AgentUnderTest) -> IngestLease:
    [started] = agent.said(IngestStarted)
    assert isinstance(started, IngestStarted)
    return started.lease


@pytest.mark.parametrize(
    ("outcome", "held_by", "expected"),
    [
        (LeaseOutcome.GRANTED, None, IngestLease.GRANTED),
        (LeaseOutcome.UNREACHABLE, None, IngestLease.UNREACHABLE),
        (LeaseOutcome.DENIED, "edge-1", IngestLease.HELD_HERE),
    ],
)
def test_a_publisher_is_admitted_and_how_the_platform_answered_is_said(
    outcome: LeaseOutcome, held_by: str | None, expected: IngestLease
) -> None:
    agent = asking(outcome, held_by)
    on_air(agent)
    assert lease_of(agent) is expected
    [question] = agent.asked  # PUSH_REWRITE and STREAM_PUSH go on with what RTMP_PUSH_REWRITE asked
    [started] = agent.said(IngestStarted)
    assert isinstance(started, IngestStarted)
    assert question == AskLease(STREAM, started.ingest_id)


@pytest.mark.parametrize(("held_by", "expected"), [("edge-2", Reason.DUPLICATE_INGEST), (None, Reason.STREAM_LIMIT_REACHED)])
def test_the_platform_knows_of_other_nodes(held_by: str | None, expected: IngestRejection) -> None:
    agent = asking(LeaseOutcome.DENIED, held_by)
    assert offer(agent) == ("", "")
    assert push(agent) == "false"
    assert len(agent.asked) == 1
    [rejected] = agent.said()
    assert isinstance(rejected, IngestRejected)
    assert (rejected.reason, rejected.held_by) == (expected, held_by)


def test_what_is_known_here_is_not_asked() -> None:
    agent = asking(LeaseOutcome.GRANTED)
    on_air(agent)
    assert offer(agent, pid=101) == ("", "")
    assert offer(agent, "sk_unknown0_x", pid=102) == ("", "")
    assert len(agent.asked) == 1


def test_two_who_wait_for_the_platform_at_the_same_time_do_not_both_come_in() -> None:
    agent = asking(LeaseOutcome.GRANTED)
    first, second = (agent_trigger(agent, pid) for pid in (100, 101))
    questions = [agent.agent.handle(t, agent.now_ms).question for t in (first, second)]
    assert None not in questions
    replies = {q: LeaseAnswer(LeaseOutcome.GRANTED) for q in questions if q}
    answers = [agent.agent.handle(t, agent.now_ms, replies).answer for t in (second, first)]
    assert answers == ["live+lobby", ""]


def agent_trigger(agent: AgentUnderTest, pid: int) -> Trigger:
    return Trigger("PUSH_REWRITE", f"{url()}\n10.0.0.1\n{KEY}".encode(), f"u{pid}", "InstanceA", pid, agent.now_ms)


def test_asking_says_and_changes_nothing_and_is_not_remembered() -> None:
    agent = asking(LeaseOutcome.GRANTED)
    outcome = agent.agent.handle(agent_trigger(agent, 100), agent.now_ms)
    assert outcome.question is not None
    assert (outcome.facts, outcome.changes, outcome.is_written) == ((), (), False)
    again = agent.agent.handle(agent_trigger(agent, 100), agent.now_ms)
    assert again.question == outcome.question
    assert not again.is_retry


def test_whoever_asks_after_a_change_is_a_bug_that_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = asking(LeaseOutcome.GRANTED)
    inner: Agent = agent.agent

    def careless(turn: Any, _body: Any) -> str:
        turn.state.broadcasts.put("x", Broadcast(is_live=True))
        turn.lease(AskLease(STREAM, STREAM))
        return ""

    entry: Entry[bytes] = Entry(lambda body: body, careless, "")
    monkeypatch.setattr("edge_agent.agent.CATALOGUE", {"PUSH_REWRITE": entry})
    with pytest.raises(RuntimeError, match="asked after it had changed something"):
        inner.handle(agent_trigger(agent, 100), agent.now_ms)


def test_a_publisher_whose_end_was_not_heard_is_ended_when_the_next_one_comes() -> None:
    agent = asking(LeaseOutcome.DENIED, "edge-1")
    on_air(agent)
    agent.send("STREAM_BUFFER", "live+lobby\nEMPTY", pid=55)
    assert offer(agent, pid=101)[1] == "live+lobby"
    assert agent.names() == ["IngestStarted", "BufferChanged", "StreamWentOffline", "IngestEnded"]
