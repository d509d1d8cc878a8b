"""The codec: what is written is read, and what is broken is said to be."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from io import BytesIO
from typing import get_args
from uuid import UUID

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams import codec, ids
from streams.errors import Invalid
from streams.generated import READERS, WRITERS, Meta, NodeStarted, Policy, StreamPolicy, StreamRenamed, ViewerLeft
from streams.registry import Registered, by_id, by_name, latest, registered, versions
from tests.arbitrary import METAS, records

POLICIES = sorted(kind.__name__ for kind in get_args(Policy))
EVENTS = sorted(READERS.keys() - set(POLICIES))
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ANY = UUID("018f6e2a-1111-7222-8333-444455556666")
META = Meta(ANY, ANY, ANY, 7, ANY, ANY, NOON, "user:ada")


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_comes_back_as_it_was(name: str) -> None:
    @FEW
    @given(records(name), METAS)
    def round_trip(event: object, meta: Meta) -> None:
        assert not isinstance(event, Policy)
        value = codec.encode(event, meta)  # type: ignore[arg-type]
        assert codec.decode(value) == (event, meta)
        assert codec.name_of(value) == name
        assert codec.schema_id(value) == by_name()[name].id

    round_trip()


@FEW
@given(st.sampled_from(POLICIES).flatmap(records))
def test_a_policy_comes_back_as_it_was(policy: Policy) -> None:
    assert codec.decode_policy(codec.encode_policy(policy)) == policy


@pytest.mark.parametrize("name", EVENTS)
def test_a_body_that_was_cut_is_invalid_at_every_length(name: str) -> None:
    @settings(FEW, max_examples=5)
    @given(records(name), METAS)
    def cut(event: object, meta: Meta) -> None:
        value = codec.encode(event, meta)  # type: ignore[arg-type]
        for length in range(len(value)):
            with pytest.raises(Invalid):
                codec.decode(value[:length])
        with pytest.raises(Invalid, match="1 bytes behind the body"):
            codec.decode(value + b"\0")

    cut()


@settings(FEW, max_examples=300)
@given(st.sampled_from(registered()), st.binary(max_size=200))
def test_any_other_bytes_are_an_event_or_invalid_never_a_crash(schema: Registered, body: bytes) -> None:
    with contextlib.suppress(Invalid):
        codec.decode(codec.frame(schema.id, body))


@settings(FEW, max_examples=300)
@given(records("ViewerLeft"), st.data())
def test_an_event_with_a_changed_byte_is_an_event_or_invalid(event: ViewerLeft, data: st.DataObject) -> None:
    value = bytearray(codec.encode(event, META))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Invalid):
        codec.decode(bytes(value))


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"\x01\0\0\0\x01rest", b'{"json": true}'])
def test_what_is_not_framed_is_invalid(value: bytes) -> None:
    with pytest.raises(Invalid, match="not a framed Avro record"):
        codec.schema_id(value)


def test_an_unknown_schema_id_is_invalid_and_named() -> None:
    with pytest.raises(Invalid, match="schema id 4000000000 is not known"):
        codec.decode(codec.frame(4_000_000_000, b""))


def test_a_policy_is_no_event_and_an_event_is_no_policy() -> None:
    policy = StreamPolicy(ANY, ANY, "abc", "xyz", (), False)
    with pytest.raises(Invalid, match="StreamPolicy is no event"):
        codec.decode(codec.encode_policy(policy))
    with pytest.raises(Invalid, match="StreamRenamed is no policy"):
        codec.decode_policy(codec.encode(StreamRenamed("Stage"), META))


def test_an_event_that_does_not_fit_its_schema_is_not_written() -> None:
    with pytest.raises((TypeError, ValueError)):
        codec.encode(StreamRenamed(title=5), META)  # type: ignore[arg-type]


def test_the_frame_is_the_one_that_any_avro_client_reads() -> None:
    value = codec.encode(StreamRenamed("Stage"), META)
    registered_ = by_name()["StreamRenamed"]
    assert value[:5] == bytes([0, 0, 0, 0, registered_.id])
    fields = fastavro.schemaless_reader(BytesIO(value[5:]), dict(registered_.schema), None)
    assert isinstance(fields, dict)
    assert isinstance(fields["meta"], dict)
    assert fields["title"] == "Stage"
    assert fields["meta"]["version"] == 7


def test_headers_say_whose_and_which() -> None:
    assert codec.headers(StreamRenamed("Stage"), META) == [("tenant_id", str(ANY).encode()), ("event_type", b"StreamRenamed")]
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert codec.headers(StreamRenamed("Stage"), META, parent)[-1] == ("traceparent", parent.encode())


def test_the_registry_is_whole() -> None:
    assert [r.id for r in registered()] == list(range(1, len(registered()) + 1))
    assert set(by_name()) == set(READERS) == {kind.__name__ for kind in WRITERS}
    assert len(by_name()) == len(latest()), "short names are unique"
    for subject in latest():
        assert [r.version for r in versions(subject)] == list(range(1, len(versions(subject)) + 1))
    assert by_id()[1].text.startswith('{"type":"record"')


def test_an_event_of_a_node_keeps_its_ids() -> None:
    node = ids.node_uuid("edge-1")
    meta = Meta(node, ids.OPERATOR_TENANT, node, 0, node, node, NOON, "node:edge-1")
    event, read = codec.decode(codec.encode(NodeStarted("edge-1", "3.10"), meta))
    assert (event, read) == (NodeStarted("edge-1", "3.10"), meta)
    assert isinstance(read.aggregate_id, UUID)
