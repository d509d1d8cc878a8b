"""The door takes what every store can read, and nothing else: asked of every record that a node may send."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codec import decode, encode
from streams.generated import ClientSamples, Fact, Meta, NodeSamples, ViewerEnd, ViewerLeft
from streams.ingress.credentials import NodeCredential
from streams.ingress.ingress_pb2 import Refusal
from streams.ingress.item import Gate, NotAccepted, Routed
from streams.ingress.limits import MAX_AHEAD_SECONDS
from streams.ingress.well_formed import checker, long_at, time_bytes
from streams.registry import by_name, registered
from streams.topics import Topics
from tests.arbitrary import METAS, records
from tests.ingress import NOON, meta

LATE = datetime(2240, 1, 1, tzinfo=UTC)
TENANT, STREAM = uuid4(), uuid4()
EVERYTHING = Gate(Topics("x."), NodeCredential("edge-1", None, NOON), clock=LATE.timestamp)
NAMES = sorted(k.__name__ for k in get_args(Fact) if "said_by" not in by_name()[k.__name__].schema)  # that a node may say
LEFT = ViewerLeft("edge-1", "s1", uuid4(), "HLS", 1, 2, 3, ViewerEnd.OTHER)


def storable(value: object) -> bool:
    """Whether every store can hold a value: said of the values, knowing nothing of bytes."""
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, datetime):
        return value < datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=1 << 43)  # some day of 2248
    if isinstance(value, tuple | list):
        return all(map(storable, value))
    if isinstance(value, NodeSamples | ClientSamples):
        lengths = {len(getattr(value, f.name)) for f in fields(value) if isinstance(getattr(value, f.name), tuple | list)}
        if len(lengths) > 1:
            return False
    if is_dataclass(value) and not isinstance(value, type):
        return all(storable(getattr(value, f.name)) for f in fields(value))
    return True


@pytest.mark.parametrize("name", NAMES)
def test_what_every_store_can_hold_passes_and_nothing_else(name: str) -> None:
    @given(record=records(name), about=METAS)
    def holds(record: Fact, about: Meta) -> None:
        value = encode(record, about)
        verdict = EVERYTHING.pass_item(value, "")
        if isinstance(verdict, Routed):
            assert storable(record)
            assert storable(about)
            assert decode(verdict.value) == (record, about)
        elif verdict.code == Refusal.CLOCK_AHEAD:
            assert about.occurred_at > LATE
        else:
            assert verdict.code == Refusal.MALFORMED, verdict
            assert not storable(record) or not storable(about)

    holds()


def test_every_version_of_every_fact_has_a_checker() -> None:
    checked = [checker(r.id) for r in registered() if r.subject.startswith("fw.facts.")]
    assert len(checked) >= len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_bytes_pass_that_cannot_be_read(name: str) -> None:
    """A record that lost, gained or changed bytes is refused, or it is another record that can be read."""

    @given(
        record=records(name),
        cut=st.integers(0, 400),
        lost=st.integers(0, 3),
        put=st.binary(max_size=3) | st.sampled_from([b"\x00", b"\xff" * 10, b"\x01", b"\x80\x80"]),
    )
    def holds(record: Fact, cut: int, lost: int, put: bytes) -> None:
        value = encode(record, meta(TENANT, STREAM))
        at = min(len(value), 197 + cut)  # behind the ids, which the regular expression of Meta looks at
        value = value[:at] + put + value[at + lost :]
        if isinstance(EVERYTHING.pass_item(value, ""), Routed):
            changed, _ = decode(value)
            assert storable(changed)

    holds()


def test_every_beginning_of_a_fact_is_refused() -> None:
    whole = encode(LEFT, meta(TENANT, STREAM))
    assert isinstance(EVERYTHING.pass_item(whole, ""), Routed)
    for length in range(len(whole)):
        assert isinstance(EVERYTHING.pass_item(whole[:length], ""), NotAccepted), length
    assert isinstance(EVERYTHING.pass_item(whole + b"\x00", ""), NotAccepted)


def test_the_reason_names_the_field() -> None:
    value = encode(ViewerLeft("edge-1", "a\0b", uuid4(), "HLS", 1, 2, 3, ViewerEnd.OTHER), meta(TENANT, STREAM))
    verdict = EVERYTHING.pass_item(value, "")
    assert isinstance(verdict, NotAccepted)
    assert verdict.reason == "ViewerLeft: the body does not follow its schema: session_id holds a zero byte"


def test_a_fact_from_the_future_stays_with_its_node() -> None:
    """The newest fact decides what a stream is shown as: one from next year would freeze it."""
    gate = Gate(Topics("x."), NodeCredential("edge-1", None, NOON), clock=NOON.timestamp)

    def verdict(ahead: timedelta) -> Routed | NotAccepted:
        event_id = uuid4()
        at = NOON + ahead
        return gate.pass_item(encode(LEFT, Meta(event_id, TENANT, STREAM, 0, event_id, event_id, at, "node:edge-1")), "")

    limit = timedelta(seconds=MAX_AHEAD_SECONDS)
    for fine in (-timedelta(days=20_000), -timedelta(days=365), timedelta(), limit):
        assert isinstance(verdict(fine), Routed), fine
    for ahead in (limit + timedelta(milliseconds=1), timedelta(days=1), timedelta(days=365 * 12), timedelta(days=365 * 200)):
        refused = verdict(ahead)
        assert isinstance(refused, NotAccepted), ahead
        assert refused.code == Refusal.CLOCK_AHEAD
        assert "set the clock" in refused.reason


@given(st.integers(0, 1 << 43), st.integers(0, 1 << 43))
def test_times_compare_as_their_bytes(a: int, b: int) -> None:
    x, y = time_bytes(a / 1000), time_bytes(b / 1000)
    assert long_at(x[::-1], 0) == (int(a / 1000 * 1000), len(x))
    if len(x) == len(y):
        assert (x > y) == (int(a / 1000 * 1000) > int(b / 1000 * 1000))
