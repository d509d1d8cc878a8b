"""Meta read from its bytes equals Meta read by the Avro library."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from uuid import UUID

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codec import PREFIX, decode, encode
from streams.errors import Invalid
from streams.generated import Meta, StreamRenamed, write_Meta
from streams.meta_bytes import is_known, read_meta
from streams.registry import by_name, registered

SCHEMA = by_name()["StreamRenamed"].schema
METAS = st.builds(
    Meta,
    event_id=st.uuids(),
    tenant_id=st.uuids(),
    aggregate_id=st.uuids(),
    version=st.integers(-(2**63), 2**63 - 1),
    causation_id=st.uuids(),
    correlation_id=st.uuids(),
    occurred_at=st.integers(-(2**40), 2**42).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)),
    actor=st.text(max_size=200),
)


def test_every_event_has_a_known_meta() -> None:
    assert all(is_known(r.schema) for r in registered() if not r.subject.startswith("fw.policy."))


def test_a_meta_with_another_field_is_left_to_the_library() -> None:
    fields = SCHEMA["fields"]
    assert isinstance(fields, list)
    meta = {
        **fields[0],
        "type": {**fields[0]["type"], "fields": [*fields[0]["type"]["fields"], {"name": "region", "type": "string"}]},
    }
    assert not is_known({**SCHEMA, "fields": [meta]})
    assert not is_known({**SCHEMA, "fields": fields[1:]})


@given(METAS, st.text(max_size=5))
def test_it_equals_what_the_library_reads(meta: Meta, title: str) -> None:
    value = encode(StreamRenamed(title=title), meta)
    ours, end = read_meta(value, PREFIX.size)
    library = fastavro.schemaless_reader(BytesIO(value[PREFIX.size :]), fastavro.parse_schema(dict(SCHEMA)), None)
    assert isinstance(library, dict)
    assert ours == meta == Meta(**library["meta"])
    assert (type(ours), hash(ours), repr(ours)) == (Meta, hash(meta), repr(Meta(**library["meta"])))
    assert value[end + 1 :].decode() == title
    assert decode(value) == (StreamRenamed(title=title), meta)


@given(METAS, st.data())
def test_damaged_bytes_are_invalid_or_another_event_and_never_a_crash(meta: Meta, data: st.DataObject) -> None:
    value = bytearray(encode(StreamRenamed(title="T"), meta))
    at = data.draw(st.integers(PREFIX.size, len(value) - 1))
    value[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(PREFIX.size, len(value)))
    for damaged in (bytes(value), bytes(value[:cut])):
        try:
            decode(damaged)
        except Invalid:
            pass


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_truncated_record_is_invalid(cut: int) -> None:
    one = UUID(int=7)
    value = encode(StreamRenamed(title="T"), Meta(one, one, one, 1, one, one, datetime(2026, 1, 1, tzinfo=UTC), "actor"))
    with pytest.raises(Invalid):
        decode(value[:-cut])


@given(METAS, st.text(max_size=5))
def test_what_is_written_equals_what_the_library_writes(meta: Meta, title: str) -> None:
    out = BytesIO()
    fields = {"meta": write_Meta(meta), "title": title}
    fastavro.schemaless_writer(out, fastavro.parse_schema(dict(SCHEMA)), fields)
    assert encode(StreamRenamed(title=title), meta)[PREFIX.size :] == out.getvalue()


def test_a_meta_that_does_not_fit_is_not_written() -> None:
    one = UUID(int=1)
    meta = Meta(one, one, one, 1, one, one, datetime(2026, 1, 1, tzinfo=UTC), "operator")
    for wrong in (replace(meta, version=2**63), replace(meta, occurred_at=datetime(2026, 1, 1))):  # noqa: DTZ001
        with pytest.raises(ValueError, match=r"more than 64 bits|no time zone"):
            encode(StreamRenamed(title="x"), wrong)
