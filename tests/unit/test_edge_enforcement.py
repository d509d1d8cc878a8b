"""What a change of the policy wants done with what runs, and when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.enforcement import CONFIRM_MS, TRIES, Over, Send, Wait, actions, is_tighter, next_step
from edge_agent.node_state import Action
from streams.generated import (
    EdgeAction,
    EdgeActionStatus,
    KickedSession,
    PlaybackKind,
    PlaybackPolicy,
    Policy,
    StreamPolicy,
    TenantStanding,
)
from streams.ids import derive
from streams.playback.rules import Allowed, Denied, PlaybackRequest, decide_playback
from tests.edge_node import KEY, NOON_MS, SESSION, STREAM, TENANT, AgentUnderTest, stream_key, stream_policy
from tests.playback import NOON, NOON_SECONDS, playback, signing_key, tenant_policy, token
from tests.unit.test_edge_playback import join, leave
from tests.unit.test_edge_publishers import leave as unpublish
from tests.unit.test_edge_publishers import on_air

Kind, Status = EdgeAction, EdgeActionStatus
NEW_KEY = "sk_newnewne_0123456789abcdefghijkl"
REVOKED = datetime.fromtimestamp(0, UTC)
LOBBY = stream_policy()


def node(*policies: Policy, publisher: bool = True, viewers: int = 1) -> AgentUnderTest:
    agent = AgentUnderTest(policies or [LOBBY])
    if publisher:
        on_air(agent)
    for number in range(viewers):
        assert join(agent, number) == "true"
    return agent


def wanted(agent: AgentUnderTest, old: Policy | None, new: Policy | None) -> Sequence[Action]:
    return actions(old, new, agent.agent.state, agent.policy.stream, agent.now_ms)


def kinds(agent: AgentUnderTest, old: Policy | None, new: Policy | None) -> list[EdgeAction]:
    return [action.action for action in wanted(agent, old, new)]


def rotated(until: datetime | None) -> StreamPolicy:
    return replace(LOBBY, keys=(stream_key(NEW_KEY), stream_key(KEY, until)), version=2)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (LOBBY, LOBBY, []),
        (LOBBY, replace(LOBBY, deleted=True), [Kind.STOP_STREAM]),
        (LOBBY, replace(LOBBY, disabled=True), [Kind.STOP_STREAM]),
        (LOBBY, None, [Kind.STOP_STREAM]),
        (None, replace(LOBBY, deleted=True), [Kind.STOP_STREAM]),
        (replace(LOBBY, disabled=True), replace(LOBBY, deleted=True), []),
        (replace(LOBBY, disabled=True), LOBBY, []),
        (LOBBY, rotated(REVOKED), [Kind.DROP_PUBLISHER]),
        (LOBBY, rotated(NOON - timedelta(hours=1)), [Kind.DROP_PUBLISHER]),  # learnt late: it began after its key's end
        (LOBBY, rotated(NOON + timedelta(seconds=1)), []),
        (LOBBY, rotated(None), []),
        (LOBBY, replace(LOBBY, keys=(stream_key(NEW_KEY),)), []),  # no longer listed is not revoked
        (LOBBY, playback(PlaybackKind.JWT), [Kind.RECHECK_VIEWERS]),
        (playback(PlaybackKind.JWT), playback(), []),
        (LOBBY, replace(LOBBY, kicked=(KickedSession(SESSION, NOON + timedelta(hours=1), UUID(int=9)),)), [Kind.STOP_VIEWER]),
        (LOBBY, replace(LOBBY, kicked=(KickedSession("else", NOON + timedelta(hours=1), UUID(int=9)),)), []),
        (LOBBY, replace(LOBBY, kicked=(KickedSession(SESSION, NOON, UUID(int=9)),)), []),
        (LOBBY, tenant_policy(standing=TenantStanding.SUSPENDED), []),  # of different keys: never a pair
        (tenant_policy(), tenant_policy(standing=TenantStanding.SUSPENDED), [Kind.STOP_STREAM]),
        (None, tenant_policy(standing=TenantStanding.PAYMENT_REQUIRED), [Kind.STOP_STREAM]),
        (tenant_policy(standing=TenantStanding.SUSPENDED), tenant_policy(standing=TenantStanding.PAYMENT_REQUIRED), []),
        (tenant_policy(standing=TenantStanding.SUSPENDED), tenant_policy(), []),
        (tenant_policy(signing_key()), tenant_policy(), []),  # the stream asks for no token
        (tenant_policy(), None, []),
    ],
)
def test_what_follows_from_a_change(old: Policy | None, new: Policy | None, expected: list[EdgeAction]) -> None:
    assert kinds(node(), old, new) == expected


def test_nothing_follows_where_nothing_runs() -> None:
    idle = node(publisher=False, viewers=0)
    for old, new in ((LOBBY, None), (LOBBY, rotated(REVOKED)), (LOBBY, playback(PlaybackKind.JWT))):
        assert kinds(idle, old, new) == []
    assert kinds(idle, tenant_policy(), tenant_policy(standing=TenantStanding.SUSPENDED)) == []


def test_a_signing_key_that_is_taken_away_has_viewers_asked_again() -> None:
    stream = playback(PlaybackKind.JWT)
    agent = AgentUnderTest([stream, tenant_policy(signing_key())])
    join(agent, tkn=token())
    assert kinds(agent, tenant_policy(signing_key()), tenant_policy(version=2)) == [Kind.RECHECK_VIEWERS]
    assert kinds(agent, tenant_policy(signing_key()), tenant_policy(signing_key(), signing_key(key_id="k2"))) == []


def test_a_kick_is_under_its_own_id_and_only_once() -> None:
    kick = KickedSession(SESSION, NOON + timedelta(hours=1), UUID(int=9))
    kicked = replace(LOBBY, kicked=(kick,), version=5)
    agent = node()
    [action] = wanted(agent, LOBBY, kicked)
    assert (action.request_id, action.session_id, action.policy_version) == (kick.kick_id, SESSION, 5)
    assert wanted(agent, kicked, replace(kicked, version=6)) == []


def test_the_same_change_has_the_same_id_and_another_has_another() -> None:
    agent = node()
    [first] = wanted(agent, LOBBY, rotated(REVOKED))
    [again] = wanted(agent, None, rotated(REVOKED))
    [later] = wanted(agent, None, replace(rotated(REVOKED), version=3))
    assert first.request_id == again.request_id != later.request_id


# Carrying it out.


def pending(agent: AgentUnderTest, old: Policy, new: Policy) -> Action:
    agent.policy.update([new], agent.now_ms)
    [action] = wanted(agent, old, new)
    return action


def step(agent: AgentUnderTest, action: Action) -> Any:
    return next_step(action, agent.agent.state, agent.policy, agent.now_ms)


def sent(agent: AgentUnderTest, action: Action) -> Action:
    return replace(action, sent_ms=agent.now_ms, tries=action.tries + 1)


@pytest.mark.parametrize(
    ("new", "commands"),
    [
        (replace(LOBBY, deleted=True), {"nuke_stream": "live+lobby", "stop_sessions": "live+lobby"}),
        (rotated(REVOKED), {"nuke_stream": "live+lobby"}),
        (playback(PlaybackKind.JWT), {"invalidate_sessions": "live+lobby"}),
        (replace(LOBBY, kicked=(KickedSession(SESSION, NOON + timedelta(hours=1), UUID(int=9)),)), {"stop_sessid": SESSION}),
    ],
)
def test_what_the_media_server_is_asked(new: StreamPolicy, commands: dict[str, str]) -> None:
    agent = node()
    publisher_of = "live+lobby" if commands == {"nuke_stream": "live+lobby"} else None
    assert step(agent, pending(agent, LOBBY, new)) == Send(commands, publisher_of)


def test_it_is_done_when_what_ran_has_ended() -> None:
    agent = node()
    action = sent(agent, pending(agent, LOBBY, replace(LOBBY, deleted=True)))
    assert step(agent, action) == Wait(agent.now_ms + CONFIRM_MS)
    unpublish(agent)
    assert isinstance(step(agent, action), Wait)
    leave(agent)
    assert step(agent, action) == Over(Status.DONE)


def test_it_is_asked_again_and_at_last_fails() -> None:
    agent = node()
    action = pending(agent, LOBBY, rotated(REVOKED))
    for n in range(TRIES):
        assert step(agent, action) == Send({"nuke_stream": "live+lobby"}, None if n else "live+lobby")
        action = sent(agent, action)
        agent.now_ms += CONFIRM_MS
    over = step(agent, action)
    assert (over.status, "still runs" in over.detail) == (Status.FAILED, True)


def test_a_publisher_who_came_since_is_not_dropped_for_the_one_before() -> None:
    agent = node()
    action = pending(agent, LOBBY, rotated(REVOKED))
    unpublish(agent)
    assert agent.send("PUSH_REWRITE", f"rtmp://h/live/{NEW_KEY}\n10.0.0.1\n{NEW_KEY}", pid=101) == "live+lobby"
    assert agent.send("STREAM_PUSH", f"live+lobby\n10.0.0.1\nRTMP\nrtmp://h/live/{NEW_KEY}", pid=101) == "true"
    assert step(agent, action) == Over(Status.DONE, "it had ended by itself")


def test_what_is_allowed_again_is_left_alone() -> None:
    agent = node()
    action = pending(agent, LOBBY, replace(LOBBY, disabled=True, version=2))
    agent.policy.update([replace(LOBBY, version=3)], agent.now_ms)
    over = step(agent, action)
    assert (over.status, over.detail) == (Status.EXPIRED, "it is allowed again")


def test_a_policy_that_is_older_than_the_action_does_not_undo_it() -> None:
    """The agent was killed between the action's row and the policy's."""
    agent = node()
    [action] = wanted(agent, LOBBY, replace(LOBBY, deleted=True, version=2))
    assert isinstance(step(agent, action), Send)


def test_a_kick_that_could_not_be_carried_out_in_time_expires() -> None:
    agent = node()
    kick = KickedSession(SESSION, NOON + timedelta(seconds=60), UUID(int=9))
    action = pending(agent, LOBBY, replace(LOBBY, kicked=(kick,)))
    agent.now_ms = NOON_MS + 60_000
    assert step(agent, action).status is Status.EXPIRED


def test_a_session_that_was_stopped_and_comes_again_is_refused_by_the_rule() -> None:
    agent = node()
    kick = KickedSession(SESSION, NOON + timedelta(seconds=60), UUID(int=9))
    action = sent(agent, pending(agent, LOBBY, replace(LOBBY, kicked=(kick,))))
    leave(agent)
    assert join(agent) == "false"
    assert step(agent, action) == Over(Status.DONE)


def test_actions_outlive_a_kill() -> None:
    agent = node()
    action = pending(agent, LOBBY, replace(LOBBY, deleted=True))
    agent.agent.state.actions.put(str(action.request_id), action)
    for change in agent.agent.state.changes.take():
        assert change.value is not None
        agent.rows[change.shelf, change.key] = change.value
    agent.restart()
    assert list(agent.agent.state.actions) == [action]
    assert action.subject.tenant_id == TENANT
    assert action.request_id == derive(STREAM, "STOP_STREAM", 0, "")


# Tighter is what could refuse somebody who was let in.

POLICIES = st.builds(
    PlaybackPolicy,
    kind=st.sampled_from([PlaybackKind.PUBLIC, PlaybackKind.JWT]),
    allowed_countries=st.sampled_from([(), ("NL",), ("NL", "BE"), ("BE",)]),
    blocked_countries=st.sampled_from([(), ("NL",), ("DE",)]),
    allowed_origins=st.sampled_from([(), ("example.org",), ("example.org", "a.org")]),
    max_viewers=st.sampled_from([None, 1, 5]),
    audience=st.sampled_from([None, "a", "b"]),
    open_when_unavailable=st.booleans(),
)
REQUESTS = st.builds(
    PlaybackRequest,
    country=st.sampled_from([None, "NL", "BE", "DE"]),
    token=st.sampled_from(["", token(), token(aud="a"), token(aud=["a", "b"]), token(exp=NOON_SECONDS - 99)]),
    url=st.sampled_from(["", "http://h/?origin=example.org", "http://h/?origin=a.org"]),
    viewers=st.sampled_from([0, 3]),
)


@given(POLICIES, POLICIES, REQUESTS)
def test_who_was_let_in_and_is_not_any_more_is_asked_again(
    old: PlaybackPolicy, new: PlaybackPolicy, request_: PlaybackRequest
) -> None:
    tenant = tenant_policy(signing_key())
    before = decide_playback(replace(LOBBY, playback=old), tenant, request_, NOON, False)
    after = decide_playback(replace(LOBBY, playback=new), tenant, request_, NOON, False)
    if isinstance(before, Allowed) and isinstance(after, Denied):
        assert is_tighter(old, new)


@given(POLICIES)
def test_the_same_policy_is_not_tighter(policy: PlaybackPolicy) -> None:
    assert not is_tighter(policy, policy)
    assert not is_tighter(policy, None)
