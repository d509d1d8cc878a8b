"""Stops of a stream, and the modes of a node: what runs is ended when it is to be, and not otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from edge_agent.enforcement import Over, Send, actions, next_step
from edge_agent.node_mode import plan_mode
from edge_agent.node_state import Action, ModeChange
from edge_agent.task_settings import TaskSettings
from streams.generated import (
    EdgeAction,
    EdgeActionReported,
    EdgeActionStatus,
    NodeMode,
    NodePolicy,
    StreamTasks,
    WantedStop,
)
from streams.ids import OPERATOR_TENANT
from tests.edge_node import NOON_MS, STREAM, TENANT
from tests.task_node import LIVE, TaskNode

REQUEST = UUID(int=31)


def node() -> TaskNode:
    found = TaskNode(settings=TaskSettings(maintenance_grace_seconds=20))
    found.on_air()
    found.mist.watch(LIVE)
    found.advance(5)
    return found


def stop(at: TaskNode, seconds: int = 60, request: UUID = REQUEST) -> WantedStop:
    return WantedStop(request, datetime.fromtimestamp(at.agent.now_ms / 1000 + seconds, UTC))


def asked(at: TaskNode, old: Sequence[WantedStop], new: Sequence[WantedStop]) -> Sequence[Action]:
    tasks = StreamTasks(TENANT, STREAM, "lobby", 2, stops=tuple(new))
    before = replace(tasks, version=1, stops=tuple(old)) if old else None
    return actions(before, tasks, at.agent.agent.state, at.agent.policy.stream, at.agent.now_ms)


def test_a_stop_cuts_publisher_and_viewers_once() -> None:
    here = node()
    [action] = asked(here, (), [stop(here)])
    assert (action.action, action.request_id, action.stream) == (EdgeAction.STOP_STREAM, REQUEST, LIVE)
    step = next_step(action, here.agent.agent.state, here.agent.policy, here.agent.now_ms)
    assert step == Send({"nuke_stream": LIVE, "stop_sessions": LIVE})
    assert here.mist.call(step.commands) is not None
    here.advance(5)
    assert (here.mist.publishing(), here.mist.viewings()) == ({}, {})
    here.on_air()
    here.advance(3)
    again = next_step(replace(action, tries=1, sent_ms=NOON_MS), here.agent.agent.state, here.agent.policy, here.agent.now_ms)
    assert again == Over(EdgeActionStatus.DONE), "who came since is not cut"
    assert list(here.mist.publishing()) == [LIVE]


def test_a_stop_that_was_heard_before_is_not_heard_again() -> None:
    here = node()
    first = stop(here)
    assert asked(here, [first], [first]) == []
    assert [a.request_id for a in asked(here, [first], [first, stop(here, request=UUID(int=32))])] == [UUID(int=32)]


def test_a_node_that_has_nothing_of_the_stream_does_nothing() -> None:
    here = TaskNode()
    assert asked(here, (), [stop(here)]) == []


def test_a_stop_that_comes_too_late_is_not_carried_out() -> None:
    here = node()
    [action] = asked(here, (), [stop(here, seconds=-1)])
    step = next_step(action, here.agent.agent.state, here.agent.policy, here.agent.now_ms)
    assert isinstance(step, Over)
    assert step.status is EdgeActionStatus.EXPIRED


def mode(wanted: NodeMode, request: UUID = REQUEST) -> NodePolicy:
    return NodePolicy(OPERATOR_TENANT, "edge-1", 1, wanted, mode_request_id=request)


def told(at: TaskNode) -> list[tuple[UUID, str]]:
    return [(f.request_id, f.status.value) for f in at.agent.said() if isinstance(f, EdgeActionReported)]


def test_draining_is_told_and_ends_nothing() -> None:
    here = node()
    here.agent.policy.update([mode(NodeMode.DRAINING)], here.agent.now_ms)
    here.advance(60)
    assert told(here) == [(REQUEST, "DONE")]
    assert here.api.asked == []
    assert list(here.mist.publishing()) == [LIVE]
    [meta] = [m for f, m in here.agent.facts if isinstance(f, EdgeActionReported)]
    assert meta.aggregate_id == here.agent.agent.node.uuid, "it is about the node"


def test_maintenance_ends_what_runs_after_the_grace_and_then_is_done() -> None:
    here = node()
    here.agent.policy.update([mode(NodeMode.MAINTENANCE)], here.agent.now_ms)
    here.advance(15)
    assert told(here) == [(REQUEST, "ACKNOWLEDGED")]
    assert list(here.mist.publishing()) == [LIVE]
    here.advance(15)
    assert (here.mist.publishing(), here.mist.viewings()) == ({}, {})
    here.advance(30)
    assert told(here) == [(REQUEST, "ACKNOWLEDGED"), (REQUEST, "DONE")]
    here.agent.policy.update([mode(NodeMode.ACTIVE, UUID(int=32))], here.agent.now_ms)
    here.advance(2)
    assert told(here)[-1] == (UUID(int=32), "DONE")
    here.on_air()
    here.advance(30)
    assert list(here.mist.publishing()) == [LIVE]


def test_maintenance_goes_on_over_a_kill() -> None:
    here = node()
    here.agent.policy.update([mode(NodeMode.MAINTENANCE)], here.agent.now_ms)
    here.advance(10)
    here.kill_agent()
    here.advance(12)
    assert here.mist.publishing() == {}, "the grace counts from when it was asked for"
    here.advance(40)
    assert told(here) == [(REQUEST, "ACKNOWLEDGED"), (REQUEST, "DONE")]


def test_streams_of_the_operator_are_no_business_of_ours() -> None:
    here = node()
    here.mist.call({"addstream": {"own": {"source": "push://"}}})
    here.agent.policy.update([mode(NodeMode.MAINTENANCE)], here.agent.now_ms)
    here.advance(30)
    assert {str(c.get("nuke_stream")) for c in here.api.asked} == {LIVE}


@pytest.mark.parametrize("policy", [None, NodePolicy(OPERATOR_TENANT, "edge-1", 1, NodeMode.DRAINING)])
def test_a_mode_that_nobody_asked_for_is_not_reported(policy: NodePolicy | None) -> None:
    assert plan_mode(policy, None, [LIVE], NOON_MS, 0) is None


def test_a_mode_is_entered_once() -> None:
    wanted = mode(NodeMode.DRAINING)
    entered = plan_mode(wanted, None, [LIVE], NOON_MS, 0)
    assert entered is not None
    assert entered.change == ModeChange(REQUEST, NodeMode.DRAINING, NOON_MS, is_done=True)
    assert plan_mode(wanted, entered.change, [LIVE], NOON_MS + 1, 0) is None
