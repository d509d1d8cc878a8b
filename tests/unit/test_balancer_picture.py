"""What the balancer makes of events: nodes, where streams are, how fresh a node is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.balancer.picture import NodeState, Picture
from projections.changes import Changes
from projections.model import Database
from projections.routing import NODE_STREAMS, NODES
from projections.tables import merged
from streams.balancing.score import Ceilings, Exclusion, Question, Weights, choose
from streams.generated import (
    BalancerWeightsSet,
    Event,
    Meta,
    NodeChanged,
    NodeEnrolled,
    NodeMode,
    NodeModeSet,
    NodeRegistered,
    NodeRevoked,
    NodeSamples,
    NodeStarted,
    NodeStopped,
    StreamRelayEnded,
    StreamRelayStarted,
    StreamWentLive,
    StreamWentOffline,
)
from streams.ids import OPERATOR_TENANT, node_uuid

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
ACME, STREAM = UUID(int=1), UUID(int=5)


def said(about: UUID, seconds: float = 0, tenant_id: UUID = OPERATOR_TENANT) -> Meta:
    event_id = uuid4()
    return Meta(event_id, tenant_id, about, 0, event_id, event_id, NOW + timedelta(seconds=seconds), "node:n")


def registered(node_id: str = "fra-1", tenants: tuple[UUID, ...] | None = None) -> NodeRegistered:
    return NodeRegistered(node_id, "Frankfurt", tenants, "eu", 50.1, 8.7, "https://fra-1.example.org", ("blue",))


def samples(seconds: tuple[float, ...], up: tuple[int, ...], node_id: str = "fra-1", limit: int | None = None) -> NodeSamples:
    n = len(seconds)
    return NodeSamples(
        node_id,
        NOW,
        sampled_at=tuple(NOW + timedelta(seconds=s) for s in seconds),
        cpu_permille=(124,) * n,
        memory_used_bytes=(250,) * n,
        memory_total_bytes=(1000,) * n,
        shm_used_bytes=(0,) * n,
        shm_total_bytes=(1,) * n,
        up_bytes=up,
        down_bytes=(0,) * n,
        viewers=(4,) * n,
        inputs=(1,) * n,
        outputs=(0,) * n,
        bandwidth_limit_bytes_per_second=limit,
    )


class Story:
    """Events as a gateway hears of them."""

    def __init__(self) -> None:
        self.picture = Picture()

    def hears(self, event: Event, meta: Meta, seconds: float = 0) -> Story:
        self.picture.take(event, meta, NOW_MS + int(seconds * 1000))
        return self

    def node(self, node_id: str = "fra-1") -> NodeState:
        return self.picture.nodes()[node_id]


FRA = node_uuid("fra-1")


def test_a_registered_node_is_what_was_decided_and_how_its_samples_are() -> None:
    story = Story().hears(registered(), said(FRA)).hears(NodeStarted("fra-1", "3.10"), said(FRA))
    assert story.node().node.sampled_at_ms is None, "nobody knows how it is"
    state = story.hears(samples((0, 5), (1000, 6000), limit=99_000), said(FRA)).node()
    assert (state.base_url, state.region, state.software_version, state.viewers) == ("https://fra-1.example.org", "eu", "3.10", 4)
    assert (state.node.cpu_ppm, state.node.ram_ppm, state.node.up_bytes_per_second) == (124_000, 250_000, 1000)
    assert (state.node.limit_bytes_per_second, state.node.tags, state.node.tenants) == (99_000, frozenset({"blue"}), None)
    assert state.host == "fra-1.example.org"
    story.hears(NodeChanged(None, None, None, None, None, ()), said(FRA))
    assert (story.node().base_url, story.node().node.cell, story.node().node.has_address) == (None, None, False)


def test_modes_and_revocations() -> None:
    story = Story().hears(registered(), said(FRA)).hears(NodeModeSet(NodeMode.DRAINING), said(FRA))
    assert story.node().node.mode is NodeMode.DRAINING
    assert story.hears(NodeRevoked("stolen"), said(FRA)).node().node.is_revoked
    enrolled = NodeEnrolled(enrolment_id=uuid4(), token_prefix="x", key_fingerprint=bytes(32))
    assert not story.hears(enrolled, said(FRA)).node().node.is_revoked


def test_rates_come_from_the_record_or_else_from_the_sample_before() -> None:
    story = Story().hears(registered(), said(FRA)).hears(samples((0,), (1000,)), said(FRA))
    assert story.node().node.up_bytes_per_second == 0
    assert story.hears(samples((4,), (9000,)), said(FRA), 4).node().node.up_bytes_per_second == 2000
    assert story.hears(samples((3,), (8000,)), said(FRA), 5).node().node.up_bytes_per_second == 2000, "an old one, late"
    assert story.hears(samples((8,), (10,)), said(FRA), 8).node().node.up_bytes_per_second == 0, "counted anew: it restarted"


@pytest.mark.parametrize(
    ("sampled", "heard", "fresh"),
    [(0, 1, 1), (-120, 0, 0), (120, 0, 0), (-3600, 0, -3600), (3600, 0, 0)],
    ids=["in time", "its clock is slow", "its clock is fast", "a backlog", "its clock is very wrong"],
)
def test_a_node_is_as_fresh_as_our_own_clock_says(sampled: float, heard: float, fresh: float) -> None:
    story = Story().hears(registered(), said(FRA)).hears(samples((sampled,), (0,)), said(FRA), heard)
    assert story.node().node.sampled_at_ms == NOW_MS + int(fresh * 1000)


def test_a_stop_is_one_until_a_start_or_a_sign_of_life() -> None:
    stopped = Story().hears(registered(), said(FRA)).hears(NodeStopped("fra-1", "SIGTERM"), said(FRA, 10))
    assert stopped.node().node.is_stopped
    assert stopped.hears(samples((11,), (0,)), said(FRA, 11)).node().node.is_stopped, "its last words"
    assert not stopped.hears(samples((21,), (0,)), said(FRA, 21)).node().node.is_stopped, "the stop was cancelled"
    started = Story().hears(registered(), said(FRA)).hears(NodeStarted("fra-1", "3.10"), said(FRA, 12))
    assert not started.hears(NodeStopped("fra-1", "SIGTERM"), said(FRA, 10)).node().node.is_stopped, "in whatever order"


def test_what_a_tenant_s_node_says_changes_no_node_of_others() -> None:
    story = Story().hears(registered(), said(FRA)).hears(samples((0,), (0,)), said(FRA))
    forged = samples((3600,), (0,), node_id="fra-1")
    story.hears(forged, said(FRA, tenant_id=ACME)).hears(NodeStopped("fra-1", "x"), said(FRA, 99, tenant_id=ACME))
    state = story.node()
    assert (state.node.sampled_at_ms, state.node.is_stopped, state.node.tenants) == (NOW_MS, False, None)


def test_a_node_that_serves_one_tenant_speaks_for_it_and_unregistered_ones_have_no_address() -> None:
    story = Story().hears(registered(tenants=(ACME,)), said(FRA)).hears(samples((0,), (0,)), said(FRA, tenant_id=ACME))
    assert (story.node().node.tenants, story.node().speaks_for) == (frozenset({ACME}), ACME)
    assert story.node().node.sampled_at_ms == NOW_MS
    studio = node_uuid("studio")
    story.hears(samples((0,), (0,), node_id="studio"), said(studio, tenant_id=ACME))
    assert (story.node("studio").node.has_address, story.node("studio").node.tenants) == (False, frozenset({ACME}))


def test_a_node_that_says_anything_is_counted_within_bounds() -> None:
    wild = replace(
        samples((0, 0.001), (-(2**63), 2**63 - 1), limit=-5),
        cpu_permille=(-(2**31),) * 2,
        memory_used_bytes=(2**63 - 1,) * 2,
        memory_total_bytes=(1,) * 2,
        viewers=(-7,) * 2,
    )
    node = Story().hears(registered(), said(FRA)).hears(wild, said(FRA)).node().node
    assert (node.cpu_ppm, node.ram_ppm, node.limit_bytes_per_second) == (0, 1_000_000, 0)
    choice = choose([node], Question(OPERATOR_TENANT), Weights(), Ceilings(ram_ppm=2_000_000), NOW_MS)
    assert choice.excluded == [("fra-1", Exclusion.BANDWIDTH_FULL)]


def test_weights_are_the_operator_s() -> None:
    story = Story().hears(BalancerWeightsSet(1, 2, 3, 4, 5), said(UUID(int=9), tenant_id=ACME))
    assert story.picture.weights == Weights()
    assert story.hears(BalancerWeightsSet(1, 2, 3, 4, 5), said(UUID(int=9))).picture.weights == Weights(1, 2, 3, 4, 5)


class Tables:
    """A database, as far as the picture reads it: what each table has."""

    def __init__(self, **rows: list[dict[str, object]]) -> None:
        self._rows = rows

    async def fetch(self, query: str, *_: object, timeout: float | None = None) -> list[dict[str, object]]:
        return next((rows for table, rows in self._rows.items() if f"FROM {table}" in query), [])


async def reloaded(story: Story, now_ms: int, **rows: list[dict[str, object]]) -> None:
    await story.picture.reload(cast(Database, Tables(**rows)), now_ms)


async def test_a_table_that_is_behind_the_log_takes_no_weights_back() -> None:
    story = Story().hears(BalancerWeightsSet(1, 2, 3, 4, 5), said(UUID(int=9)))
    old = {"tenant_id": OPERATOR_TENANT, "cpu": 9, "ram": 9, "bandwidth": 9, "geo": 9, "bonus": 9}
    await reloaded(story, NOW_MS + 1000, balancer_weights=[old])
    assert story.picture.weights == Weights(1, 2, 3, 4, 5)
    await reloaded(story, NOW_MS + 600_000, balancer_weights=[old])  # what is not there by now was never so
    assert story.picture.weights == Weights(9, 9, 9, 9, 9)


async def test_a_table_tells_that_a_node_known_as_a_relay_is_live() -> None:
    story = Story().hears(StreamRelayStarted("b", "x"), said(STREAM, 1, ACME))
    at = said(STREAM, 2, ACME).occurred_at
    await reloaded(story, NOW_MS, node_streams=[{"tenant_id": ACME, "stream_id": STREAM, "node_id": "b", "live_at": at}])
    assert story.picture.origins(ACME, STREAM) == {"b"}


LIVES = st.lists(
    st.tuples(
        st.sampled_from([StreamWentLive, StreamWentOffline, StreamRelayStarted, StreamRelayEnded]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 9),
    ),
    max_size=12,
)


@given(LIVES, st.randoms())
def test_where_a_stream_is_depends_on_times_and_not_on_order(events: list[tuple[type, str, int]], order: object) -> None:
    def after(said_in: list[tuple[type, str, int]]) -> frozenset[str]:
        story = Story()
        for kind, node_id, seconds in said_in:
            story.hears(kind(node_id, "x"), said(STREAM, seconds, ACME))
        assert set(story.picture.live_streams().get((ACME, STREAM), ())) == story.picture.holders(ACME, STREAM)
        return story.picture.holders(ACME, STREAM)

    shuffled = list(events)
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # it is random.Random
    assert after(shuffled) == after(events)


def test_a_relay_has_the_stream_and_is_no_source_of_it() -> None:
    story = (
        Story().hears(StreamWentLive("a", "x"), said(STREAM, 0, ACME)).hears(StreamRelayStarted("b", "x"), said(STREAM, 1, ACME))
    )
    assert story.picture.holders(ACME, STREAM) == {"a", "b"}
    assert story.picture.origins(ACME, STREAM) == {"a"}
    story.hears(StreamRelayEnded("b", "x"), said(STREAM, 2, ACME))
    assert story.picture.holders(ACME, STREAM) == {"a"}
    story.hears(StreamRelayStarted("b", "x"), said(STREAM, 3, ACME)).hears(StreamWentOffline("a", "x"), said(STREAM, 4, ACME))
    assert story.picture.holders(ACME, STREAM) == {"b"}
    assert not story.picture.origins(ACME, STREAM)


VALUES = st.one_of(st.none(), st.integers(0, 5))


@given(st.lists(st.tuples(VALUES, VALUES), max_size=6))
def test_merging_in_memory_is_merging_in_a_batch(rows: list[tuple[int | None, int | None]]) -> None:
    row: dict[str, object] = {}
    changes = Changes(NODE_STREAMS)
    changes.first(("k",))
    for live, offline in rows:
        row = merged(NODE_STREAMS, row, {"live_at": live, "offline_at": offline})
        for name, value in (("live_at", live), ("offline_at", offline)):
            if value is not None:
                changes.greatest(("k",), name, value)
    assert row == {k: v for k, v in changes.rows["k",].items() if v is not None}
    follows = merged(NODES, {"sampled_at": 2, "sample": "b"}, {"sampled_at": 2, "sample": "a", "node_id": None})
    assert follows == {"sampled_at": 2, "sample": "b"}
    assert merged(NODES, follows, {"sampled_at": 3, "sample": "a"}) == {"sampled_at": 3, "sample": "a"}
