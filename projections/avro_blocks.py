"""Avro records into ClickHouse without decoding them: records become a block by cutting and joining bytes.

An Avro body is a plain concatenation of its fields. Therefore

* a nested record has the same bytes as its fields written in its place: flattening a schema costs nothing, and
* zig-zag varints in front of a body make it a body of a schema with as many more leading fields.

So the bodies of one schema id, each behind its partition, append time and offset, and before the block's seal, are one block
of an Avro object container whose writer schema is the flattened record: a legal input for `INSERT … FORMAT Avro`.

Invariant: a body cannot speak for another. One that is longer or shorter than its schema would shift everything behind it, and
two that fit together could smuggle in a record that nobody sent. Therefore every row ends with the block's seal, a random
number that the table compares (`CONSTRAINT sealed`). As many rows as records, each ending with a seal that no body can know,
means that every row is a record; anything else fails the insert as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streams.codec import PREFIX
from streams.faust_batches.fetched import ConsumerRecord
from streams.registry import Registered

SYNC: Final = bytes(16)
"""Stands behind the header and behind every block; it only has to repeat itself."""
PLACE: Final[tuple[tuple[str, str | dict[str, str]], ...]] = (
    ("_partition", "int"),
    ("_appended_at", {"type": "long", "logicalType": "timestamp-millis"}),
    ("_offset", "long"),
)
"""The fields that stand in front of every body: where and when the record was appended."""
SEAL: Final = ("_seal", "long")
"""The field that stands behind every body."""


def varint(number: int) -> bytes:
    """Avro's int and long: zig-zag, then seven bits a byte, low ones first."""
    return _unsigned((number << 1) ^ (number >> 63))


def _unsigned(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def flattened(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields of a record: those of `meta` opened in its place, other nested records too, with their name in front."""
    fields: list[dict[str, Any]] = []
    for field in schema["fields"]:
        kind = field["type"]
        if isinstance(kind, dict) and kind.get("type") == "record":
            prefix = "" if field["name"] == "meta" else f"{field['name']}_"
            fields += [{**inner, "name": prefix + inner["name"]} for inner in flattened(kind)]
        else:
            fields.append(dict(field))
    return fields


def header(registered: Registered) -> bytes:
    """Head of a container file for bodies of this schema."""
    # Only names and types: the engine parses this text with every insert.
    fields = [{"name": name, "type": kind} for name, kind in PLACE]
    fields += [{"name": f["name"], "type": f["type"]} for f in flattened(registered.schema)]
    fields.append({"name": SEAL[0], "type": SEAL[1]})
    text = json.dumps({"type": "record", "name": registered.name, "fields": fields}, separators=(",", ":")).encode()
    pairs = ((b"avro.schema", text), (b"avro.codec", b"null"))
    listed = b"".join(varint(len(k)) + k + varint(len(v)) + v for k, v in pairs)
    return b"Obj\x01" + varint(len(pairs)) + listed + varint(0) + SYNC


_LOW: Final = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14))
"""The two low bytes of a varint that has more of them."""


def block(head: bytes, seal: int, records: Sequence[ConsumerRecord]) -> bytes:
    """A container file of records of one partition, whose values are all framed with the schema id of `head`."""
    end, partition = varint(seal), varint(records[0].partition)
    parts: list[bytes] = []
    add = parts.append
    skip = PREFIX.size
    appended_at, place, high, high_bytes = None, b"", -1, b""
    for record in records:
        if record.timestamp != appended_at:  # neighbours were often appended in the same millisecond
            appended_at = record.timestamp
            place = end + partition + varint(appended_at)
        offset = record.offset << 1
        if offset >> 14 != high:  # and share all but the low bytes of their offset
            high = offset >> 14
            high_bytes = _unsigned(high)
        value = record.value
        assert value is not None  # it was found by its schema id, so it has one
        add(place)
        if high:
            add(_LOW[offset & 0x3FFF])
            add(high_bytes)
        else:
            add(_unsigned(offset))
        add(value[skip:])
    parts[0] = parts[0][len(end) :]  # a seal closes the row before it; the first row has none
    add(end)
    body = b"".join(parts)
    return b"".join((head, varint(len(records)), varint(len(body)), body, SYNC))
