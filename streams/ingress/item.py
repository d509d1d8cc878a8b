"""What the ingress asks of an item: whose it is, what about, when, which record, and whether it can be read at all.

Invariants
* Every record of the log begins with Meta (streams/meta_bytes.LAYOUT), whose ids are written as their length (36, as a zigzag
  varint: 0x48) and 36 characters: one expression reads it. A test holds that against every schema in the lock file.
* What passes is well formed to its last byte (`well_formed`): nothing that a node sends becomes a dead letter or stops a line.
* What passes happened at most five minutes from now. The newest fact decides what a stream is shown as, so one from the future
  would freeze it; the node keeps what is refused for that (its quarantine), for the fact is true and only the clock is wrong.
* What a node with a certificate says is signed with its own name (Meta.actor, and node_id where a record begins with it), and
  what it says about a node is about itself: nobody speaks for another.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from streams.codec import Header
from streams.ingress.credentials import NodeCredential
from streams.ingress.ingress_pb2 import Refusal
from streams.ingress.limits import MAX_AHEAD_SECONDS, MAX_ITEM_BYTES
from streams.ingress.well_formed import LONG, TIME, Checker, Malformed, checker, long_at, time_bytes
from streams.ingress.well_formed import UUID as A_UUID
from streams.registry import Registered, registered
from streams.topics import Topics, partition_of

_ID: Final = b"H(" + A_UUID[1:] + b")"
_META: Final = re.compile(rb"\x00.{4}" + 3 * _ID + LONG + 2 * A_UUID + b"(" + TIME + b")", re.DOTALL)  # up to the actor
_NO_TENANT: Final = re.compile(rb"\x00.{4}H.{36}(?:\x00|H00000000-0000-0000-0000-000000000000)", re.DOTALL)
_NIL: Final = b"00000000-0000-0000-0000-000000000000"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

KNOWN_KEYS: Final = 1 << 16  # aggregates whose partition is remembered: 16 MB at most


class Routed(NamedTuple):
    """An item that may stand on the log: where, and what goes beside it. A tuple because 100,000 a second are made."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Sequence[Header]
    event_type: str


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """An item that may not, and why."""

    code: Refusal.Code.ValueType
    reason: str


@dataclass(frozen=True, slots=True)
class _FactType:
    topic: str
    name: str
    header: Header
    check: Checker  # of what stands behind `occurred_at`
    names_node: bool  # whether `node_id` stands first behind Meta
    is_of_node: bool  # whether it is about a node and nothing else


@cache
def _fact_types(topics: Topics) -> Mapping[bytes, _FactType | None]:
    """By the four bytes of the schema id; None: known, but no fact, or none that a node may say (`said_by`)."""
    types: dict[bytes, _FactType | None] = {}
    for r in registered():
        is_fact = r.subject.startswith("fw.facts.") and "said_by" not in r.schema
        types[r.id.to_bytes(4, "big")] = _fact_type(r, topics) if is_fact else None
    return types


def _fact_type(r: Registered, topics: Topics) -> _FactType:
    topic, fields = topics.of(r.name).name, r.schema["fields"]
    assert isinstance(fields, list)
    names_node = [f["name"] for f in fields[:2]] == ["meta", "node_id"]
    return _FactType(topic, r.name, ("event_type", r.name.encode()), checker(r.id), names_node, topic == topics.nodes.name)


@lru_cache(maxsize=KNOWN_KEYS)
def _key(aggregate_id: bytes) -> tuple[bytes, int]:
    """Kafka key and partition of an aggregate: its hash costs more than all else here."""
    key = UUID(aggregate_id.decode())
    return key.bytes, partition_of(key)


class Gate:
    """What one node may append. `clock`: seconds since 1970."""

    def __init__(self, topics: Topics, credential: NodeCredential, clock: Callable[[], float] = time.time) -> None:
        self.topics, self.credential, self.clock = topics, credential, clock
        self.tenants = frozenset(str(t).encode() for t in credential.tenants or ())
        self.is_operators = credential.tenants is None
        self.types = _fact_types(topics)
        self.is_enrolled = credential.enrolment_id is not None
        self.node = str(credential.node_uuid).encode()
        self.actor = _text(f"node:{credential.node_id}")
        self.actor_and_node = self.actor + _text(credential.node_id)

    def pass_item(self, value: bytes, traceparent: str) -> Routed | NotAccepted:
        """Where an item goes, or why it goes nowhere."""
        if len(value) > MAX_ITEM_BYTES:
            return NotAccepted(Refusal.TOO_LARGE, f"an item has at most {MAX_ITEM_BYTES} bytes, not {len(value)}")
        types = self.types
        if value[:1] != b"\0" or value[1:5] not in types:
            return _unframed(value)
        fact = types[value[1:5]]
        if fact is None:
            return NotAccepted(Refusal.NOT_A_FACT, f"schema id {_schema_id(value)} is no fact: a node says only what it saw")
        meta = _META.match(value)
        if meta is None or meta[2] == _NIL:
            return _no_meta(value)
        tenant_id, aggregate_id = meta.group(2, 3)
        if not (self.is_operators or tenant_id in self.tenants or _may_say(self.credential, tenant_id, aggregate_id)):
            text = tenant_id.decode()
            return NotAccepted(Refusal.FOREIGN_TENANT, f"node {self.credential.node_id} is not bound to tenant {text}")
        if self.is_enrolled and not self._says_of_itself(value, meta.end(), aggregate_id, fact):
            reason = f"node {self.credential.node_id} speaks for itself alone: this is said by, or about, another node"
            return NotAccepted(Refusal.FOREIGN_TENANT, reason)
        try:
            fact.check(value, meta.end())
        except Malformed as error:
            return NotAccepted(Refusal.MALFORMED, f"{fact.name}: the body does not follow its schema: {error}")
        except IndexError:
            return NotAccepted(
                Refusal.MALFORMED, f"{fact.name}: the body does not follow its schema: bytes are missing at the end"
            )
        if meta[4][::-1] > (latest := _latest(int(self.clock()))) or len(meta[4]) > len(latest):
            ahead_seconds = long_at(value, meta.start(4))[0] / 1000 - self.clock()
            if ahead_seconds > MAX_AHEAD_SECONDS:
                return _from_the_future(fact.name, ahead_seconds)
        headers: list[Header] = [("tenant_id", tenant_id), fact.header]
        # What is no traceparent is left out: the trace is for people, the event must not be lost for it.
        if traceparent and _TRACEPARENT.fullmatch(traceparent):
            headers.append(("traceparent", traceparent.encode()))
        key, partition = _key(aggregate_id)
        return Routed(fact.topic, partition, key, value, headers, fact.name)

    def _says_of_itself(self, value: bytes, at: int, aggregate_id: bytes, fact: _FactType) -> bool:
        """Whether the node signed with its own name. `at`: where the actor stands."""
        signed = value.startswith(self.actor_and_node if fact.names_node else self.actor, at)
        return signed and (not fact.is_of_node or aggregate_id == self.node)


def _text(text: str) -> bytes:
    """As Avro writes it: its length as a zigzag varint, then UTF-8."""
    data = text.encode()
    left, out = len(data) << 1, bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left]) + data


@lru_cache(maxsize=KNOWN_KEYS)
def _may_say(credential: NodeCredential, tenant_id: bytes, aggregate_id: bytes) -> bool:
    return credential.may_say(UUID(tenant_id.decode()), UUID(aggregate_id.decode()))


@lru_cache(maxsize=1)
def _latest(now_seconds: int) -> bytes:
    return time_bytes(now_seconds + MAX_AHEAD_SECONDS)


def _schema_id(value: bytes) -> int:
    return int.from_bytes(value[1:5], "big")


def _unframed(value: bytes) -> NotAccepted:
    if len(value) < 5 or value[0] != 0:
        return NotAccepted(Refusal.MALFORMED, "an item begins with 0x00 and the schema id in 4 bytes")
    return NotAccepted(Refusal.UNKNOWN_SCHEMA, f"schema id {_schema_id(value)} is not known here")


def _from_the_future(name: str, ahead_seconds: float) -> NotAccepted:
    return NotAccepted(
        Refusal.CLOCK_AHEAD,
        f"{name}: it says that it happened {ahead_seconds:,.0f} s from now: set the clock of this node (NTP). Up to "
        f"{MAX_AHEAD_SECONDS} s are taken",
    )


def _no_meta(value: bytes) -> NotAccepted:
    if _NO_TENANT.match(value):
        return NotAccepted(Refusal.MISSING_TENANT, "the tenant id is empty: every fact belongs to a tenant, or to the operator's")
    return NotAccepted(
        Refusal.MALFORMED, "the body does not begin with Meta: five UUIDs in small letters, a version, and a time from 1970 on"
    )
