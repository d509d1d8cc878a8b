"""Blocks of undecoded records: what an Avro reader finds in them is what was said, and where."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from projections.avro_blocks import block, flattened, header, varint
from projections.clickhouse_tables import FactTable
from streams.codec import encode, schema_id
from streams.generated import ViewerJoined
from streams.registry import by_id, by_name, registered
from tests.fact_log import NOON, FactLog, Raw, fact_meta

EPOCH = datetime.fromtimestamp(0, UTC)


def viewer_joined(n: int) -> bytes:
    event = ViewerJoined(node_id="n1", session_id=f"s{n}", viewing_id=uuid4(), connector="HLS", country=None if n % 2 else "NL")
    return encode(event, fact_meta(uuid4(), uuid4(), NOON))


def read(container: bytes) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", list(fastavro.reader(io.BytesIO(container))))


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_varint_is_avros_long(number: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert varint(number) == out.getvalue()


@given(
    st.integers(0, (1 << 62) - 1),
    st.integers(0, 11),
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 42)), min_size=1, max_size=30),
)
def test_a_block_says_where_and_when_each_record_was_appended(seal: int, partition: int, places: list[tuple[int, int]]) -> None:
    value = viewer_joined(0)
    records = [Raw("t", partition, offset, timestamp, value) for offset, timestamp in places]
    rows = read(block(header(by_id()[schema_id(value)]), seal, records))
    assert [(r["_seal"], r["_partition"], r["_offset"]) for r in rows] == [(seal, partition, offset) for offset, _ in places]
    assert [r["_appended_at"] for r in rows] == [EPOCH + timedelta(milliseconds=ms) for _, ms in places]


def test_offsets_around_the_lengths_of_their_varints() -> None:
    value = viewer_joined(1)
    offsets = sorted({max(0, (1 << bits) + d) for bits in range(45) for d in (-1, 0, 1)})
    rows = read(block(header(by_id()[schema_id(value)]), 7, [Raw("t", 0, offset, 0, value) for offset in offsets]))
    assert [r["_offset"] for r in rows] == offsets


def test_the_body_is_read_as_it_was_written_with_meta_opened() -> None:
    log = FactLog()
    for n in range(5):
        log.append(viewer_joined(n))
    rows = read(block(header(by_name()["ViewerJoined"]), 1, log.records))
    assert [r["session_id"] for r in rows] == [f"s{n}" for n in range(5)]
    assert [r["country"] for r in rows] == ["NL", None, "NL", None, "NL"]
    assert {r["actor"] for r in rows} == {"node:n1"}
    assert "meta" not in rows[0]


def test_a_container_is_one_block_of_so_many_records() -> None:
    records = [Raw("t", 0, n, 0, viewer_joined(n)) for n in range(3)]
    blocks = list(fastavro.block_reader(io.BytesIO(block(header(by_name()["ViewerJoined"]), 1, records))))
    assert [b.num_records for b in blocks] == [3]


def test_every_record_type_that_lies_on_a_log_can_be_a_table() -> None:
    for known in registered():
        if not any(f["name"] == "meta" for f in known.schema["fields"]):  # type: ignore[attr-defined]  # JSON of a record
            continue
        names = [f["name"] for f in flattened(known.schema)]
        assert len(set(names)) == len(names), known.subject
        assert header(known)


def test_columns_follow_the_schema() -> None:
    columns = {c.name: str(c) for c in FactTable(ViewerJoined, 1).columns}
    assert list(columns)[:4] == ["_partition", "_appended_at", "_offset", "_seal"]
    assert columns["tenant_id"] == "tenant_id UUID"
    assert columns["occurred_at"] == "occurred_at DateTime64(3, 'UTC')"
    assert columns["country"] == "country Nullable(String)"
