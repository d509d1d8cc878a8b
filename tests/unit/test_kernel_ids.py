"""Ids that are derived are the same wherever and whenever they are derived."""

from __future__ import annotations

from uuid import UUID, uuid5

from hypothesis import assume, given
from hypothesis import strategies as st

from streams import ids

PARTS = st.lists(st.text(max_size=8), max_size=4)
COMMAND = UUID("018f6e2a-1111-7222-8333-444455556666")


@given(st.uuids(), PARTS, PARTS)
def test_the_same_parts_are_the_same_id_and_others_another(space: UUID, one: list[str], other: list[str]) -> None:
    assert ids.derive(space, *one) == ids.derive(space, *one)
    assume(one != other)
    assert ids.derive(space, *one) != ids.derive(space, *other)


def test_where_a_part_ends_counts() -> None:
    assert ids.derive(COMMAND, "ab", "c") != ids.derive(COMMAND, "a", "bc")
    assert ids.derive(COMMAND, "1:a") != ids.derive(COMMAND, "a")


def test_derived_ids_never_change() -> None:
    """They stand on logs for ever: another value would be another stream, node or event."""
    assert str(ids.OPERATOR_TENANT) == "609b3f83-0f4c-50df-b062-9a48dedc1c70"
    assert str(ids.node_uuid("edge-1")) == "9268631d-bc31-519f-ab96-bab12cabd69a"
    assert str(ids.command_id(ids.OPERATOR_TENANT, "key-1")) == "62966c43-df0d-55a9-b2c2-9813776454cb"
    assert str(ids.event_id(COMMAND, 0)) == "c34efe4f-1d63-5017-8cee-f9ae0a7081a8"
    assert str(ids.outcome_id(COMMAND)) == "18764721-07e3-5eef-9ea0-0094a607ee45"


def test_derived_ids_are_version_5_and_new_ones_7() -> None:
    assert ids.event_id(COMMAND, 0).version == 5
    assert ids.new_id().version == 7
    assert isinstance(ids.new_id(), UUID)


def test_new_ids_are_unique_and_ordered_by_time() -> None:
    made = [ids.new_id() for _ in range(1_000)]
    assert len(set(made)) == len(made)
    milliseconds = [u.int >> 80 for u in made]
    assert milliseconds == sorted(milliseconds)


def test_one_clients_key_is_not_anothers() -> None:
    one, other = ids.new_id(), ids.new_id()
    assert ids.command_id(one, "k") != ids.command_id(other, "k")
    assert ids.event_id(COMMAND, 0) != ids.event_id(COMMAND, 1) != ids.outcome_id(COMMAND)


@given(st.uuids(), PARTS, st.integers(0, 10**6))
def test_they_are_the_uuid5_of_the_standard(space: UUID, parts: list[str], n: int) -> None:
    assert ids.derive(space, *parts) == uuid5(space, "".join(f"{len(p)}:{p}" for p in parts))
    assert ids.event_id(space, n) == ids.derive(space, "event", n)
    assert ids.outcome_id(space) == ids.derive(space, "outcome")
