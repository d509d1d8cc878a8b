"""Which node serves whom: tables of the rules, and that the fast way gives what the plain rules say."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.balancing.fleet import Fleet
from streams.balancing.geography import MILLION, cell_of, centre, coarse, distance_ppm
from streams.balancing.score import (
    Ceilings,
    Choice,
    Exclusion,
    Node,
    Parts,
    Purpose,
    Question,
    Weights,
    choose,
    parts,
)
from streams.generated import NodeMode
from streams.ids import OPERATOR_TENANT

ACME, BETA = UUID(int=1), UUID(int=2)
NOW_MS = 1_795_000_000_000
AMSTERDAM, LONDON, SYDNEY = (cell_of(*at) for at in ((52.4, 4.9), (51.5, -0.1), (-33.9, 151.2)))
IDLE = Node("a", None, sampled_at_ms=NOW_MS)
CEILINGS = Ceilings()


def asked(nodes: list[Node], question: Question = Question(ACME), weights: Weights = Weights()) -> Choice:  # noqa: B008 - frozen
    """What the plain rules choose; the fleet must agree in everything."""
    plain = choose(nodes, question, weights, CEILINGS, NOW_MS)
    fleet = Fleet(nodes, weights, CEILINGS, NOW_MS)
    assert fleet.choose(question, limit=len(nodes)) == plain
    assert fleet.winner(question) == plain.winner
    return plain


def test_the_parts_are_those_that_a_media_server_s_own_balancer_gave() -> None:
    """CONTRACT 6.7: 12.4 % of CPU, 2.2 % of memory, 301,070 of 134,217,728 bytes per second: cpu 438, ram 489, bw 998."""
    node = replace(IDLE, cpu_ppm=124_000, ram_ppm=22_070, up_bytes_per_second=301_070, limit_bytes_per_second=134_217_728)
    [candidate] = asked([node]).candidates
    assert parts(Weights(), candidate.measures) == Parts(cpu=438, ram=489, bandwidth=998, geo=0, bonus=0, tags=0)
    assert candidate.score == 438 + 489 + 998


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tenants": frozenset({BETA})}, Exclusion.NOT_FOR_TENANT),
        ({"is_revoked": True}, Exclusion.REVOKED),
        ({"is_stopped": True}, Exclusion.STOPPED),
        ({"mode": NodeMode.DRAINING}, Exclusion.DRAINING),
        ({"mode": NodeMode.MAINTENANCE}, Exclusion.MAINTENANCE),
        ({"has_address": False}, Exclusion.NO_ADDRESS),
        ({"sampled_at_ms": None}, Exclusion.STALE),
        ({"sampled_at_ms": NOW_MS - 45_000}, None),
        ({"sampled_at_ms": NOW_MS - 45_001}, Exclusion.STALE),
        ({"cpu_ppm": 900_000}, None),
        ({"cpu_ppm": 900_001}, Exclusion.CPU_FULL),
        ({"ram_ppm": 900_000}, None),
        ({"ram_ppm": 900_001}, Exclusion.RAM_FULL),
        ({"up_bytes_per_second": 95, "limit_bytes_per_second": 100}, None),
        ({"up_bytes_per_second": 96, "limit_bytes_per_second": 100}, Exclusion.BANDWIDTH_FULL),
        ({"up_bytes_per_second": 90, "reserved_bytes_per_second": 6, "limit_bytes_per_second": 100}, Exclusion.BANDWIDTH_FULL),
        ({"limit_bytes_per_second": 0, "up_bytes_per_second": 1}, Exclusion.BANDWIDTH_FULL),
    ],
)
def test_hard_rules_come_before_any_score(changed: dict[str, object], reason: Exclusion | None) -> None:
    node = replace(IDLE, **changed)  # type: ignore[arg-type]  # named fields of the parametrization
    choice = asked([node])
    assert choice.excluded == ([] if reason is None else [("a", reason)])
    assert choice.winner == ("a" if reason is None else None)


def test_a_draining_node_is_still_a_source_and_a_node_is_never_told_to_pull_from_itself() -> None:
    draining = replace(IDLE, node_id="d", mode=NodeMode.DRAINING)
    source = Question(ACME, Purpose.SOURCE, frozenset({"d", "b"}), asking=frozenset({"b"}))
    choice = asked([IDLE, draining, replace(IDLE, node_id="b")], source)
    assert choice.winner == "d"
    assert choice.excluded == [("a", Exclusion.NO_STREAM), ("b", Exclusion.ASKING)]
    assert asked([draining], Question(ACME, Purpose.INGEST)).excluded == [("d", Exclusion.DRAINING)]


def test_a_publisher_needs_room_below_the_ceiling() -> None:
    busy, idle = replace(IDLE, node_id="b", cpu_ppm=850_000), replace(IDLE, node_id="c", cpu_ppm=800_000)
    choice = asked([busy, idle], Question(ACME, Purpose.INGEST, needed_cpu_ppm=100_000))
    assert (choice.winner, choice.excluded) == ("c", [("b", Exclusion.CPU_FULL)])


def test_a_tenant_s_own_nodes_come_first_and_serve_nobody_else() -> None:
    own = replace(IDLE, node_id="own", tenants=frozenset({ACME}), cpu_ppm=890_000)
    assert asked([IDLE, own]).winner == "own"
    assert asked([IDLE, own], Question(BETA)).winner == "a"
    assert asked([IDLE, replace(own, cpu_ppm=900_001)]).winner == "a", "full: the operator's nodes are there for that"
    assert asked([IDLE, own], Question(OPERATOR_TENANT)).winner == "a"


def test_the_nearest_of_equals_wins_and_an_unknown_place_counts_nothing() -> None:
    nodes = [replace(IDLE, node_id=n, cell=c) for n, c in (("ams", AMSTERDAM), ("lon", LONDON), ("syd", SYDNEY))]
    choice = asked([*nodes, IDLE], Question(ACME, cell=LONDON))
    assert [c.node_id for c in choice.candidates] == ["lon", "ams", "syd", "a"]
    assert [parts(Weights(), c.measures).geo for c in choice.candidates] == [1000, 982, 151, 0]
    assert asked(nodes, Question(ACME)).winner == "ams", "equal scores: the first by name"


def test_the_stream_s_node_has_a_bonus_and_tags_add_what_the_rule_says() -> None:
    b = replace(IDLE, node_id="b", tags=frozenset({"blue", "ssd"}))
    assert asked([IDLE, b]).winner == "a"
    assert asked([IDLE, b], Question(ACME, holders=frozenset({"b", "gone"}))).winner == "b"
    tagged = asked([IDLE, b], Question(ACME, tag_adjust={"blue": 10, "ssd": -4, "red": 99}))
    assert [(c.node_id, c.measures.tag_adjustment) for c in tagged.candidates] == [("b", 6), ("a", 0)]
    assert asked([IDLE, b], Question(ACME, tag_adjust={"blue": -1000})).winner == "a"


def test_reservations_fill_a_node() -> None:
    fleet = Fleet(
        [replace(IDLE, limit_bytes_per_second=1000), replace(IDLE, node_id="b", cpu_ppm=500_000)], Weights(), CEILINGS, NOW_MS
    )
    assert fleet.winner(Question(ACME)) == "a"
    fleet.reserve("a", 951)
    assert fleet.winner(Question(ACME)) == "b"
    assert fleet.choose(Question(ACME)).excluded == [("a", Exclusion.BANDWIDTH_FULL)]
    fleet.reserve("a", -951)
    fleet.reserve("unknown", 1)
    assert fleet.winner(Question(ACME)) == "a"


def test_positions_become_cells() -> None:
    assert cell_of(float("nan"), 0) is cell_of(91, 0) is cell_of(0, 181) is None
    assert AMSTERDAM is not None
    assert coarse(AMSTERDAM) is not None
    assert coarse(AMSTERDAM) != AMSTERDAM
    assert coarse(None) is None
    north, south = cell_of(90, 0), cell_of(-90, 0)
    assert north is not None
    assert south is not None
    assert 995_000 < distance_ppm(centre(north), centre(south)) <= MILLION
    assert distance_ppm(centre(north), centre(north)) == 0


CELLS = st.sampled_from([None, AMSTERDAM, LONDON, SYDNEY])
SHARES = st.integers(0, MILLION)
NODES = st.lists(
    st.builds(
        Node,
        node_id=st.sampled_from("abcdefgh"),
        tenants=st.sampled_from([None, frozenset({ACME}), frozenset({BETA}), frozenset({ACME, BETA})]),
        has_address=st.booleans(),
        mode=st.sampled_from(NodeMode),
        is_revoked=st.booleans(),
        is_stopped=st.booleans(),
        tags=st.frozensets(st.sampled_from(["blue", "red"])),
        cell=CELLS,
        sampled_at_ms=st.one_of(st.none(), st.integers(NOW_MS - 60_000, NOW_MS + 1000)),
        cpu_ppm=SHARES,
        ram_ppm=SHARES,
        up_bytes_per_second=st.integers(0, 2000),
        reserved_bytes_per_second=st.integers(0, 500),
        limit_bytes_per_second=st.integers(0, 2000),
    ),
    max_size=8,
    unique_by=lambda node: node.node_id,
)
QUESTIONS = st.builds(
    Question,
    tenant_id=st.sampled_from([OPERATOR_TENANT, ACME, BETA]),
    purpose=st.sampled_from(Purpose),
    holders=st.frozensets(st.sampled_from("abcdefghz")),
    cell=CELLS,
    tag_adjust=st.dictionaries(st.sampled_from(["blue", "red"]), st.integers(-100_000, 100_000)),
    asking=st.frozensets(st.sampled_from("abz"), max_size=2),
    needed_cpu_ppm=st.sampled_from([0, 100_000, MILLION]),
)
WEIGHTS = st.builds(Weights, *[st.integers(0, 100_000)] * 5)


@settings(max_examples=300)
@given(NODES, st.lists(QUESTIONS, min_size=1, max_size=4), WEIGHTS)
def test_the_fleet_answers_as_the_rules_say(nodes: list[Node], questions: list[Question], weights: Weights) -> None:
    fleet = Fleet(nodes, weights, CEILINGS, NOW_MS)
    for question in questions:  # one fleet for all: what it remembers must not leak from one question to the next
        plain = choose(nodes, question, weights, CEILINGS, NOW_MS)
        assert fleet.choose(question, limit=8) == plain
        assert fleet.winner(question) == plain.winner
        for candidate in plain.candidates:
            assert parts(weights, candidate.measures).total == candidate.score
