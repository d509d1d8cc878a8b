"""Rows of an Avro object container, read as ClickHouse reads them: strictly by the writer's schema, and every row sealed.

Invariant: a block is whole or refused. What the engine stumbles over is `Unreadable`; it says so with its reader's name in the
message, which is what the store looks for.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

CODE: Final = 1001  # STD_EXCEPTION: what the engine makes of an exception of its Avro library


class Unreadable(Exception):
    """`code` is the engine's."""

    def __init__(self, reason: str, code: int = CODE) -> None:
        super().__init__(f"Cannot read data: {reason}: (AvroRowInputFormat)")
        self.code = code


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise Unreadable("EOF reached")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (number >> 1) ^ -(number & 1)
            shift += 7
            if shift >= 70:
                raise Unreadable("invalid Avro varint")


def rows(container: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    """The writer's field names, and what each row says. Raises Unreadable."""
    data = _Bytes(container)
    if data.take(4) != b"Obj\x01":
        raise Unreadable("not an Avro file")
    meta: dict[bytes, bytes] = {}
    while count := data.varint():
        for _ in range(abs(count)):
            key = data.take(data.varint())
            meta[key] = data.take(data.varint())
    schema, sync = json.loads(meta[b"avro.schema"]), data.take(16)
    names = [f["name"] for f in schema["fields"]]
    found: list[dict[str, Any]] = []
    while data.at < len(container):
        count, size = data.varint(), data.varint()
        body = _Bytes(data.take(size))
        found += [{f["name"]: _value(body, f["type"]) for f in schema["fields"]} for _ in range(count)]
        if body.at != size:
            raise Unreadable("bytes behind the rows of a block")
        if data.take(16) != sync:
            raise Unreadable("sync mismatch")
    return names, found


def _value(data: _Bytes, kind: Any) -> Any:
    match kind:
        case {"logicalType": "uuid"}:
            return _uuid(data.take(data.varint()))
        case {"logicalType": "timestamp-millis"}:
            return data.varint()
        case {"type": "array", "items": items}:
            return _array(data, items)
        case {"type": "record", "fields": fields}:
            return tuple(_value(data, f["type"]) for f in fields)
        case {"type": "enum", "symbols": symbols}:
            number = data.varint()
            if not 0 <= number < len(symbols):
                raise Unreadable("enum value out of range")
            return symbols[number]
        case {"type": str(plain)}:
            return _value(data, plain)
        case list(branches):
            branch = data.varint()
            if not 0 <= branch < len(branches):
                raise Unreadable("union index out of range")
            return _value(data, branches[branch])
    return _plain(data, kind)


def _plain(data: _Bytes, kind: str) -> Any:
    match kind:
        case "null":
            return None
        case "string" | "bytes":
            return data.take(data.varint())
        case "int" | "long":
            return data.varint()
        case "boolean":
            if (byte := data.take(1)) not in (b"\0", b"\1"):
                raise Unreadable("invalid boolean")
            return byte == b"\1"
        case "double" | "float":
            return struct.unpack("<d" if kind == "double" else "<f", data.take(8 if kind == "double" else 4))[0]
    raise ValueError(f"no value of the Avro type {kind!r}")


def _array(data: _Bytes, items: Any) -> list[Any]:
    found: list[Any] = []
    while count := data.varint():
        if count < 0:
            count, _ = -count, data.varint()
        if count > len(data.data):
            raise Unreadable("EOF reached")
        found += [_value(data, items) for _ in range(count)]
    return found


def _uuid(text: bytes) -> UUID:
    try:
        return UUID(text.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise Unreadable("not a UUID") from None


def sealed(found: list[dict[str, Any]], settings: Mapping[str, Any]) -> None:
    """`CONSTRAINT sealed`. Raises Unreadable with the engine's code for a violated constraint."""
    seal = int(settings.get("log_comment", "0"))
    for row in found:
        if row["_seal"] != seal:
            raise Unreadable("constraint `sealed` is violated", 469)
