"""A stream that a node fetches from another is watched here and live there: nothing of it is told as a broadcast of this node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.turn import Site
from streams.generated import (
    BufferChanged,
    IngestStarted,
    StreamRelayEnded,
    StreamRelayStarted,
    StreamWentLive,
    StreamWentOffline,
    TracksChanged,
)
from tests.edge_node import KEY, AgentUnderTest
from tests.mist.direct import Fault, Node
from tests.mist.state import Flavour

STREAM = "live+lobby"
SITE = Site(balancer_url="http://balancer:8042")
FULL = f'{STREAM}\nFULL\n{{"buffer":26146,"jitter":120,"maxkeepaway":45000}}'
EMPTY = f"{STREAM}\nEMPTY\n136719"
OF_BROADCASTS = (BufferChanged, IngestStarted, StreamWentLive, StreamWentOffline, TracksChanged)


def node_beside_another(flavour: Flavour = "stock") -> Node:
    node = Node(flavour=flavour, site=SITE)
    node.mist.state.elsewhere.add(STREAM)
    return node


def told(agent: AgentUnderTest) -> list[str]:
    kinds = (*OF_BROADCASTS, StreamRelayStarted, StreamRelayEnded)
    return [type(fact).__name__ for fact in agent.said() if isinstance(fact, kinds)]


def lost(*names: str) -> Fault:
    return lambda post: "lost" if post.name in names else ""


@pytest.mark.parametrize("flavour", ["stock", "fork"])
def test_a_relay_is_told_from_its_first_picture_to_its_last_and_viewers_count_as_ever(flavour: Flavour) -> None:
    node = node_beside_another(flavour)
    viewer = node.mist.watch(STREAM)
    assert viewer.refusal is None
    node.advance(60)
    assert told(node.agent) == ["StreamRelayStarted"]
    node.mist.leave(viewer)
    node.advance(120)
    assert told(node.agent) == ["StreamRelayStarted", "StreamRelayEnded"]
    [[left]] = node.left().values()
    assert (left.seconds, left.synthesized) == (60, False)
    assert (node.truth.lost_total, node.truth.found_total) == (0, 0)
    assert node.mist.watch(STREAM).refusal is None
    node.advance(10)
    assert told(node.agent)[2:] == ["StreamRelayStarted"]


def test_what_no_trigger_told_of_a_relay_the_api_does() -> None:
    node = node_beside_another()
    node.wire.fault = lost("STREAM_BUFFER", "LIVE_TRACK_LIST", "STREAM_END", "STREAM_UNLOAD")
    viewer = node.mist.watch(STREAM)
    node.advance(60)
    node.kill_agent()
    node.advance(60)
    node.mist.leave(viewer)
    node.advance(180)
    started, ended = [f for f in node.agent.said() if isinstance(f, StreamRelayStarted | StreamRelayEnded)]
    assert (started.evidence or "").startswith("Online for ")
    assert "not active for " in (ended.evidence or "")
    assert told(node.agent) == ["StreamRelayStarted", "StreamRelayEnded"]


def test_a_server_that_dies_relays_nothing_any_more() -> None:
    node = node_beside_another()
    node.mist.watch(STREAM)
    node.advance(30)
    node.mist.kill_everything()
    node.advance(5)
    node.mist.start()
    node.advance(120)
    assert told(node.agent) == ["StreamRelayStarted", "StreamRelayEnded"]


def test_a_publisher_who_comes_to_the_relaying_node_is_live_there() -> None:
    """As when an encoder is sent to another node while viewers watch there."""
    node = node_beside_another()
    node.mist.watch(STREAM)
    node.advance(30)
    node.mist.state.elsewhere.clear()  # its publisher left the other node
    node.advance(2)
    publisher = node.mist.publish(KEY)
    assert publisher.refusal is None
    node.advance(60)
    kinds = told(node.agent)
    assert kinds[:2] == ["StreamRelayStarted", "StreamRelayEnded"]
    assert [kind for kind in kinds[2:] if kind.startswith(("Ingest", "StreamWent"))] == ["IngestStarted", "StreamWentLive"]
    node.mist.unpublish(publisher)
    node.mist.state.elsewhere.add(STREAM)  # and goes on elsewhere
    node.advance(5)
    assert node.mist.watch(STREAM, "203.0.113.9").refusal is None
    node.advance(60)
    went = [kind for kind in told(node.agent) if kind.startswith(("StreamWent", "StreamRelay"))]
    assert went == ["StreamRelayStarted", "StreamRelayEnded", "StreamWentLive", "StreamWentOffline", "StreamRelayStarted"]
    assert not node.open_publishers()


def test_the_end_of_what_was_live_here_is_told_although_it_is_heard_behind_the_question_for_its_source() -> None:
    agent = AgentUnderTest(site=SITE)
    agent.send("STREAM_BUFFER", FULL)  # live here, whoever publishes
    assert agent.send("STREAM_SOURCE", STREAM).startswith("balance:")
    agent.send("STREAM_BUFFER", EMPTY)
    assert told(agent) == ["BufferChanged", "StreamWentLive", "StreamWentOffline"]
    agent.send("STREAM_BUFFER", FULL)
    assert told(agent)[3:] == ["StreamRelayStarted"]


def test_an_end_names_what_is_over() -> None:
    agent = AgentUnderTest(site=SITE)
    agent.send("STREAM_BUFFER", FULL)
    agent.restart()
    agent.send("STREAM_BUFFER", EMPTY, after_ms=60_000)
    [live] = [meta for fact, meta in agent.facts if isinstance(fact, StreamWentLive)]
    [offline] = [fact for fact in agent.said() if isinstance(fact, StreamWentOffline)]
    assert offline.live_since == live.occurred_at


def test_where_that_end_is_never_heard_the_beginning_of_the_relay_tells_it() -> None:
    agent = AgentUnderTest(site=SITE)
    agent.send("STREAM_BUFFER", FULL)
    agent.send("STREAM_SOURCE", STREAM)
    agent.send("STREAM_BUFFER", FULL)
    assert told(agent)[2:] == ["StreamRelayStarted", "StreamWentOffline"]


def test_a_player_that_asks_for_ever_for_what_is_nowhere_writes_nothing_more() -> None:
    agent = AgentUnderTest(site=SITE)
    assert agent.outcome("STREAM_SOURCE", STREAM).changes
    assert not any(agent.outcome("STREAM_SOURCE", STREAM).changes for _ in range(100))
    assert agent.said() == []


def test_without_a_balancer_everything_is_published_here() -> None:
    agent = AgentUnderTest(site=replace(SITE, balancer_url=None))
    agent.send("STREAM_SOURCE", STREAM)
    agent.send("STREAM_BUFFER", FULL)
    assert told(agent) == ["BufferChanged", "StreamWentLive"]
