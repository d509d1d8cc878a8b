"""Hypothesis strategies for every record, from its Avro schema: a record added tomorrow is tested tomorrow.

Values lie where the log's consumers can read them: 64-bit numbers, instants in milliseconds from 1970 to 9999, text without
lone surrogates.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from streams.codec import _uuid
from streams.generated import READERS, Meta, Record
from streams.registry import by_name

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = int((datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) / timedelta(milliseconds=1))

INSTANTS = st.integers(0, LAST_MS).map(lambda ms: EPOCH + timedelta(milliseconds=ms))
PRIMITIVE: Mapping[str, SearchStrategy[object]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    "bytes": st.binary(max_size=64),
}
LOGICAL: Mapping[str, SearchStrategy[object]] = {
    "uuid": st.uuids().map(lambda u: _uuid(str(u))),
    "timestamp-millis": INSTANTS,
}


def values(kind: object) -> SearchStrategy[object]:
    """What fastavro would hand to a reader for this type."""
    if isinstance(kind, str):
        return PRIMITIVE[kind]
    if isinstance(kind, list):
        return st.one_of([values(k) for k in kind])
    assert isinstance(kind, dict)
    match kind["type"]:
        case "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"]) for f in kind["fields"]})
        case "array":
            return st.lists(values(kind["items"]), max_size=4)
        case "enum":
            return st.sampled_from(kind["symbols"])
        case primitive:
            return LOGICAL.get(kind.get("logicalType", ""), PRIMITIVE[primitive])


@cache
def records(name: str) -> SearchStrategy[Record]:
    """Any record of this name, in its newest version."""
    return values(dict(by_name()[name].schema)).map(READERS[name])


METAS: SearchStrategy[Meta] = st.builds(
    Meta,
    event_id=LOGICAL["uuid"],
    tenant_id=LOGICAL["uuid"],
    aggregate_id=LOGICAL["uuid"],
    version=st.integers(0, 2**63 - 1),
    causation_id=LOGICAL["uuid"],
    correlation_id=LOGICAL["uuid"],
    occurred_at=INSTANTS,
    actor=PRIMITIVE["string"],
)
