"""Reads and writes Meta straight as bytes: it begins every record, and half of the time of a decode or encode went into it.

Invariant: only for records whose writer's Meta is LAYOUT to the letter; any other Meta is left to the Avro library. What is
read or written here equals what the library reads or writes, and what the library refuses is refused here too
(tests/unit/test_meta_bytes.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as CUUID

from streams.generated import Meta

_UUID: Final = {"type": "string", "logicalType": "uuid"}
LAYOUT: Final = (
    ("event_id", _UUID),
    ("tenant_id", _UUID),
    ("aggregate_id", _UUID),
    ("version", "long"),
    ("causation_id", _UUID),
    ("correlation_id", _UUID),
    ("occurred_at", {"type": "long", "logicalType": "timestamp-millis"}),
    ("actor", "string"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SMALL: Final = tuple(bytes([number << 1]) for number in range(64))
_36: Final = 72  # the length of a UUID's text, as Avro writes it


@dataclass(slots=True)
class _Meta:
    """Meta while it is made. A frozen dataclass pays four times as much for every field that it is given."""

    event_id: UUID
    tenant_id: UUID
    aggregate_id: UUID
    version: int
    causation_id: UUID
    correlation_id: UUID
    occurred_at: datetime
    actor: str


def is_known(schema: Mapping[str, object]) -> bool:
    """Whether a record with this schema begins with a Meta that `read_meta` can read."""
    fields = schema["fields"]
    if not isinstance(fields, list) or not fields or fields[0]["name"] != "meta" or not isinstance(fields[0]["type"], dict):
        return False
    return tuple((f["name"], f["type"]) for f in fields[0]["type"]["fields"]) == LAYOUT


def read_meta(value: bytes, at: int) -> tuple[Meta, int]:
    """The Meta that begins at `at`, and where it ends. Raises IndexError or ValueError when there is none."""
    if value[at] != _36 or value[at + 37] != _36 or value[at + 74] != _36:
        raise ValueError("an id is no UUID")
    three = value[at + 1 : at + 111].decode("ascii")
    version, at = _number(value, at + 111)
    if value[at] != _36 or value[at + 37] != _36:
        raise ValueError("an id is no UUID")
    two = value[at + 1 : at + 74].decode("ascii")
    milliseconds, at = _number(value, at + 74)
    length, at = _number(value, at)
    if length < 0 or at + length > len(value):
        raise ValueError("the actor is longer than the record")
    made = _Meta(
        CUUID(three[:36]),
        CUUID(three[37:73]),
        CUUID(three[74:]),
        version,
        CUUID(two[:36]),
        CUUID(two[37:]),
        _EPOCH + timedelta(milliseconds=milliseconds),
        value[at : at + length].decode(),
    )
    made.__class__ = Meta  # type: ignore[assignment]  # the same slots in the same order
    return made, at + length  # type: ignore[return-value]


def instant(milliseconds: int) -> datetime:
    """The time so long after 1970."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _number(value: bytes, at: int) -> tuple[int, int]:
    """A variable-length zigzag number, and where it ends."""
    byte = value[at]
    at += 1
    number, shift = byte & 127, 7
    while byte > 127:
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
        byte = value[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), at


def write_meta(meta: Meta) -> bytes:
    """The bytes of a Meta. Raises ValueError when its time has no zone or a number has more than 64 bits."""
    if meta.occurred_at.tzinfo is None:
        raise ValueError(f"occurred_at has no time zone: {meta.occurred_at}")
    milliseconds = (meta.occurred_at - _EPOCH) // _MILLISECOND
    actor = meta.actor.encode()
    # H is how Avro writes the length 36
    three = f"H{meta.event_id}H{meta.tenant_id}H{meta.aggregate_id}".encode("ascii")
    two = f"H{meta.causation_id}H{meta.correlation_id}".encode("ascii")
    return b"".join((three, _varint(meta.version), two, _varint(milliseconds), _varint(len(actor)), actor))


def _varint(number: int) -> bytes:
    """A number as Avro writes it: zigzag, seven bits a byte."""
    if 0 <= number < 64:
        return _SMALL[number]
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{number} has more than 64 bits")
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)
