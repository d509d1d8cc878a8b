"""What the ingress slices out of an item is what the codec reads from it, for every schema; broken bytes go nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codec import decode, encode, frame, headers
from streams.generated import NodeSamples, NodeStarted, TriggerInvalid
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.ingress.credentials import NodeCredential
from streams.ingress.ingress_pb2 import Refusal
from streams.ingress.item import Gate, NotAccepted, Routed
from streams.ingress.limits import MAX_ITEM_BYTES
from streams.registry import Registered, registered
from streams.topics import Topics, partition_of
from tests.ingress import NOON, fact, framed, meta

A, B, STREAM = uuid4(), uuid4(), uuid4()
TOPICS = Topics("x.")
GATE = Gate(TOPICS, NodeCredential("edge-1", frozenset({A, B}), NOON))
FACT = fact(A, STREAM, 1)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("schema", registered(), ids=lambda r: f"{r.id}-{r.name}")
def test_every_event_begins_with_the_three_ids(schema: Registered) -> None:
    fields = schema.schema["fields"]
    assert isinstance(fields, list)
    if not schema.subject.startswith("fw.facts."):
        return
    assert fields[0]["name"] == "meta"
    beginning = [(f["name"], f["type"]["logicalType"]) for f in fields[0]["type"]["fields"][:3]]
    assert beginning == [("event_id", "uuid"), ("tenant_id", "uuid"), ("aggregate_id", "uuid")]


@given(tenant_id=st.sampled_from([A, B]), aggregate_id=st.uuids(), n=st.integers(0, 1 << 40))
def test_an_item_goes_where_its_key_says(tenant_id: UUID, aggregate_id: UUID, n: int) -> None:
    value = fact(tenant_id, aggregate_id, n)
    event, meta = decode(value)
    routed = GATE.pass_item(value, TRACEPARENT)
    assert routed == Routed(
        topic="x.fw.facts",
        partition=partition_of(meta.aggregate_id),
        key=meta.aggregate_id.bytes,
        value=value,
        headers=list(headers(event, meta, TRACEPARENT)),
        event_type="BufferChanged",
    )


def test_records_go_to_the_topic_of_their_schema() -> None:
    node = node_uuid("edge-1")
    samples = NodeSamples("edge-1", NOON, (), (), (), (), (), (), (), (), (), (), ())
    invalid = TriggerInvalid("edge-1", "USER_NEW", "6 lines", b"\xff")
    assert topic(framed(samples, OPERATOR_TENANT, node)) == "x.fw.samples"
    assert topic(framed(invalid, OPERATOR_TENANT, node)) == "x.fw.nodes"


def topic(value: bytes) -> str:
    routed = GATE.pass_item(value, "")
    assert isinstance(routed, Routed)
    return routed.topic


def test_an_event_is_not_lost_for_a_bad_traceparent() -> None:
    routed = GATE.pass_item(FACT, "00-\r\nx")
    assert isinstance(routed, Routed)
    assert [name for name, _ in routed.headers] == ["tenant_id", "event_type"]


EMPTY_TENANT = FACT[:42] + b"\x00" + FACT[79:]
NIL_TENANT = FACT[:43] + b"00000000-0000-0000-0000-000000000000" + FACT[79:]
BROKEN: Mapping[str, tuple[bytes, Refusal.Code.ValueType]] = {
    "nothing": (b"", Refusal.MALFORMED),
    "no magic byte": (b"\x01" + FACT[1:], Refusal.MALFORMED),
    "half a schema id": (FACT[:4], Refusal.MALFORMED),
    "no body": (FACT[:5], Refusal.MALFORMED),
    "half of meta": (FACT[:100], Refusal.MALFORMED),
    "upper case": (FACT[:6] + FACT[6:42].upper() + FACT[42:], Refusal.MALFORMED),
    "no uuid": (FACT[:80] + b"x" * 36 + FACT[116:], Refusal.MALFORMED),
    "empty tenant": (EMPTY_TENANT, Refusal.MISSING_TENANT),
    "nil tenant": (NIL_TENANT, Refusal.MISSING_TENANT),
    "foreign tenant": (fact(uuid4(), STREAM, 1), Refusal.FOREIGN_TENANT),
    "unknown schema": (frame((1 << 32) - 1, FACT[5:]), Refusal.UNKNOWN_SCHEMA),
    "too large": (FACT + bytes(MAX_ITEM_BYTES), Refusal.TOO_LARGE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_items_are_refused_with_a_reason(name: str) -> None:
    value, code = BROKEN[name]
    verdict = GATE.pass_item(value, "")
    assert isinstance(verdict, NotAccepted)
    assert verdict.code == code
    assert len(verdict.reason) > 20


NOT_A_NODE_S = [r for r in registered() if not r.subject.startswith("fw.facts.") or "said_by" in r.schema]


@pytest.mark.parametrize("schema", NOT_A_NODE_S, ids=lambda r: r.name)
def test_a_node_says_facts_only_and_no_decisions_of_the_balancer(schema: Registered) -> None:
    verdict = GATE.pass_item(frame(schema.id, FACT[5:]), "")
    assert isinstance(verdict, NotAccepted)
    assert verdict.code == Refusal.NOT_A_FACT


@given(st.binary(max_size=200) | st.builds(lambda n, b: FACT[:n] + b, st.integers(0, 120), st.binary(max_size=200)))
def test_any_bytes_get_a_verdict(value: bytes) -> None:
    verdict = GATE.pass_item(value, "")
    if isinstance(verdict, Routed):
        assert verdict.headers[0] in [("tenant_id", str(t).encode()) for t in (A, B)]


@pytest.mark.parametrize("name", ["edge-1", "studio~k3x7qa2bq5rt", "n" * 63, "n" * 64, "ä" * 90])
def test_a_node_with_a_certificate_signs_with_its_own_name(name: str) -> None:
    gate = Gate(TOPICS, NodeCredential(name, None, NOON, owner=OPERATOR_TENANT, enrolment_id=uuid4()))

    def code(value: bytes) -> object:
        passed = gate.pass_item(value, "")
        return passed.code if isinstance(passed, NotAccepted) else "passed"

    def started(said: str, about: str, by: str) -> bytes:
        return encode(NodeStarted(said, "3.10"), meta(OPERATOR_TENANT, node_uuid(about), node_id=by))

    assert code(fact(A, STREAM, 1, name)) == code(started(name, name, name)) == "passed"
    other = name[:-1] + "x"
    assert {code(v) for v in (fact(A, STREAM, 1, other), fact(A, STREAM, 1, name + "x"), fact(A, STREAM, 1, name[:-1]))} == {
        Refusal.FOREIGN_TENANT
    }
    assert {code(started(*who)) for who in ((other, name, name), (name, other, name), (name, name, other))} == {
        Refusal.FOREIGN_TENANT
    }
    told = gate.pass_item(fact(A, STREAM, 1, other), "")
    assert isinstance(told, NotAccepted)
    assert "speaks for itself alone" in told.reason
