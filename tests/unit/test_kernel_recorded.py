"""Positions and topics."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.generated import READERS, Policy
from streams.ids import new_id
from streams.recorded import Position
from streams.topics import PARTITIONS, Topics, partition_of

POSITIONS = st.builds(Position, st.integers(0, 99_999), st.integers(0, 10**18 - 1))


@given(POSITIONS)
def test_a_position_is_read_from_its_text(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(POSITIONS, POSITIONS)
def test_positions_of_a_partition_are_ordered_by_offset(one: Position, other: Position) -> None:
    if one.partition == other.partition:
        assert (one < other) == (one.offset < other.offset)


@pytest.mark.parametrize(
    "text", ["", "3", "3-", "-3", "3--1", "3-1 ", " 3-1", "a-b", "123456-1", "1-" + "9" * 19, "3-1\n", "٣-٤"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="take it from a mutation's answer"):
        Position.parse(text)


def test_every_record_but_the_policy_lies_on_one_topic() -> None:
    topics = Topics("x.")
    for name in READERS:
        if name in {kind.__name__ for kind in get_args(Policy)}:
            with pytest.raises(KeyError):
                topics.of(name)
        else:
            assert topics.of(name) in topics.all()
            assert topics.of(name).name.startswith("x.fw.")
    assert topics.of("StreamCreated") == topics.of("CommandHandled") == topics.decisions
    assert topics.commands.partitions == topics.decisions.partitions, "a decision lies in the partition of its command"


def test_keys_spread_over_all_partitions() -> None:
    hit = [0] * PARTITIONS
    for _ in range(6_000):
        hit[partition_of(new_id())] += 1
    assert min(hit) > 350
    assert max(hit) < 650
