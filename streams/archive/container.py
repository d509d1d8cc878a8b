"""Records of the log as an Avro object container file, and back.

Invariant: a file explains itself for ever. Any Avro library reads it: a record of the file is a record of the log, its value
the bytes as they were appended, and the schemas that these were framed with stand in the file's metadata by their ids.

Written and read by hand because that is three times as fast as through a general library. Two things make it so. Headers are
written as an Avro array that says its size, which the format allows: a reader need not look inside, and the headers of one
record are mostly those of one before. And neighbours were mostly appended in the same millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from backports import zstd

from streams.archive.errors import ArchiveDamaged
from streams.codec import PREFIX
from streams.faust_batches.fetched import TP, ConsumerRecord
from streams.registry import by_id

MAGIC: Final = b"Obj\x01"
BLOCK_BYTES: Final = 1 << 20
ZSTD_LEVEL: Final = 3
SCHEMAS_KEY: Final = "frameworks.schemas"
SCHEMA: Final[dict[str, object]] = {
    "type": "record",
    "name": "Archived",
    "namespace": "fw.archive",
    "doc": "One record of a partition of the log.",
    "fields": [
        {"name": "offset", "type": "long"},
        {"name": "appended_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "key", "type": ["null", "bytes"]},
        {
            "name": "headers",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Header",
                    "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": ["null", "bytes"]}],
                },
            },
        },
        {
            "name": "value",
            "type": ["null", "bytes"],
            "doc": "As appended: 0x00, schema id in 4 bytes (big endian), Avro body. The file's metadata has the schemas by id.",
        },
    ],
}
Headers = Sequence[tuple[str, bytes]]


class Archived(NamedTuple):
    """A record of the log, from the archive. A `ConsumerRecord`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def varint(number: int) -> bytes:
    """Avro's int and long: zig-zag, then seven bits a byte, low ones first."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7


def sync_marker(tp: TP, first: int) -> bytes:
    """Stands between blocks. Derived, so that the same range makes the same file, whoever writes it."""
    return sha256(f"{tp.topic}/{tp.partition}/{first}".encode()).digest()[:16]


_LENGTHS: Final = tuple(varint(n) for n in range(1 << 14))
"""Lengths that occur all the time."""


def _bytes(value: bytes) -> bytes:
    length = len(value)
    return (_LENGTHS[length] if length < len(_LENGTHS) else varint(length)) + value


def _optional(value: bytes | None) -> bytes:
    return b"\x00" if value is None else b"\x02" + _bytes(value)


def _headers(headers: Headers) -> bytes:
    """An array of one block that says its size: the count is negative, as the format has it."""
    if not headers:
        return b"\x00"
    items = b"".join(_bytes(name.encode()) + _optional(value) for name, value in headers)
    return varint(-len(headers)) + varint(len(items)) + items + b"\x00"


@dataclass(slots=True)
class FileWriter:
    """A file in the making, of one partition from `first` on. `add` any number of times, then `close` once."""

    tp: TP
    first: int
    records: int = 0
    raw_bytes: int = 0
    first_appended_ms: int | None = None  # the smallest and the greatest: append times of a log need not ascend
    last_appended_ms: int | None = None
    schema_ids: set[int] = field(default_factory=set)
    _blocks: list[bytes] = field(default_factory=list)
    _rows: list[bytes] = field(default_factory=list)
    _rows_bytes: int = 0
    _known_headers: dict[Headers, bytes] = field(default_factory=dict)
    _framings: set[bytes] = field(default_factory=set)

    def add(self, records: Sequence[ConsumerRecord], until_bytes: int | None = None) -> int:
        """Takes records in their order, until the file is so large; how many were taken. About 3 µs each: run it on a thread."""
        known = self._known_headers
        appended_ms, appended = None, b""
        for taken, record in enumerate(records, start=1):
            if record.timestamp != appended_ms:
                appended_ms = record.timestamp
                appended = varint(appended_ms)
                self._span(appended_ms)
            about = tuple(record.headers)
            headers = known.get(about)
            if headers is None:
                if len(known) > 10_000:
                    known.clear()
                headers = known[about] = _headers(about)
            value = record.value
            row = varint(record.offset) + appended + _optional(record.key) + headers + _optional(value)
            if value is not None:
                self._framings.add(value[: PREFIX.size])
            self._rows.append(row)
            self._rows_bytes += len(row)
            if self._rows_bytes >= BLOCK_BYTES:
                self._end_block()
                if until_bytes is not None and self.raw_bytes >= until_bytes:
                    self.records += taken
                    return taken
        self.records += len(records)
        return len(records)

    def _span(self, appended_ms: int) -> None:
        if self.first_appended_ms is None or self.last_appended_ms is None:
            self.first_appended_ms = self.last_appended_ms = appended_ms
        self.first_appended_ms = min(self.first_appended_ms, appended_ms)
        self.last_appended_ms = max(self.last_appended_ms, appended_ms)

    def _end_block(self) -> None:
        if not self._rows:
            return
        packed = zstd.compress(b"".join(self._rows), level=ZSTD_LEVEL)
        self._blocks += [varint(len(self._rows)), varint(len(packed)), packed, sync_marker(self.tp, self.first)]
        self.raw_bytes += self._rows_bytes
        self._rows, self._rows_bytes = [], 0

    def close(self) -> bytes:
        """The file."""
        self._end_block()
        for framing in self._framings:
            if len(framing) == PREFIX.size and framing[0] == 0:
                number = PREFIX.unpack(framing)[1]
                if number in by_id():
                    self.schema_ids.add(number)
        schemas = {str(number): by_id()[number].schema for number in sorted(self.schema_ids)}
        metadata = {
            "avro.schema": json.dumps(SCHEMA, separators=(",", ":")),
            "avro.codec": "zstandard",
            "frameworks.topic": self.tp.topic,
            "frameworks.partition": str(self.tp.partition),
            SCHEMAS_KEY: json.dumps(schemas, separators=(",", ":"), ensure_ascii=False),
        }
        listed = b"".join(_bytes(key.encode()) + _bytes(text.encode()) for key, text in metadata.items())
        head = MAGIC + varint(len(metadata)) + listed + b"\x00" + sync_marker(self.tp, self.first)
        return b"".join((head, *self._blocks))


def head(data: bytes) -> tuple[dict[str, bytes], bytes, int]:
    """Metadata of a file, its sync marker, and where its first block begins. Raises ArchiveDamaged."""
    if data[:4] != MAGIC:
        raise ArchiveDamaged("it is no Avro object container file")
    metadata: dict[str, bytes] = {}
    try:
        count, at = read_varint(data, 4)
        while count:
            for _ in range(count):
                length, at = read_varint(data, at)
                key, at = data[at : at + length].decode(), at + length
                length, at = read_varint(data, at)
                metadata[key], at = data[at : at + length], at + length
            count, at = read_varint(data, at)
    except (IndexError, UnicodeDecodeError) as error:
        raise ArchiveDamaged("it is no Avro object container file") from error
    return metadata, data[at : at + 16], at + 16


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(how many records, their bytes) of every block, unpacked one at a time. Raises ArchiveDamaged."""
    metadata, sync, at = head(data)
    if metadata.get("avro.codec") != b"zstandard":
        raise ArchiveDamaged("its codec is not zstandard")
    try:
        while at < len(data):
            count, at = read_varint(data, at)
            length, at = read_varint(data, at)
            rows = zstd.decompress(data[at : at + length])
            at += length
            if data[at : at + 16] != sync:
                raise ArchiveDamaged("a block does not end where it says")
            at += 16
            yield count, rows
    except (IndexError, zstd.ZstdError) as error:
        raise ArchiveDamaged(f"a block cannot be unpacked: {error}") from error


def _read_headers(items: bytes, count: int) -> Headers:
    headers, at = [], 0
    for _ in range(count):
        length, at = read_varint(items, at)
        name, at = items[at : at + length].decode(), at + length
        branch, at = read_varint(items, at)
        value: bytes | None = None
        if branch:
            length, at = read_varint(items, at)
            value, at = items[at : at + length], at + length
        headers.append((name, value))
    return tuple(headers)  # type: ignore[arg-type]  # a header without value: Kafka has it, aiokafka's types do not


@dataclass(slots=True)
class RowReader:
    """Reads blocks of one partition. Remembers headers from block to block."""

    tp: TP
    _known: dict[bytes, Headers] = field(default_factory=dict)

    def rows(self, count: int, data: bytes) -> list[Archived]:  # noqa: C901, PLR0915  calls would cost more than the work
        """Records of one block. Raises ArchiveDamaged where it is not what `FileWriter` writes.

        About a microsecond a record: every step that a record mostly does not need is skipped for it.
        """
        topic, partition = self.tp
        known, new, kind = self._known, tuple.__new__, Archived
        out: list[Archived] = []
        add = out.append
        at, appended, appended_bytes, width = 0, 0, b"\xff", 1
        try:
            for _ in range(count):
                offset, shift = data[at], 0
                at += 1
                if offset > 0x7F:
                    offset &= 0x7F
                    while True:
                        byte = data[at]
                        at += 1
                        shift += 7
                        if byte < 0x80:
                            offset |= byte << shift
                            break
                        offset |= (byte & 0x7F) << shift
                if data.startswith(appended_bytes, at):
                    at += width
                else:
                    appended, end = read_varint(data, at)
                    appended_bytes, width, at = data[at:end], end - at, end
                key = None
                if data[at]:
                    length = data[at + 1]
                    at += 2
                    if length > 0x7F:
                        length, at = read_varint(data, at - 1)
                    else:
                        length >>= 1
                    key = data[at : at + length]
                    at += length
                else:
                    at += 1
                headers: Headers = ()
                if data[at]:
                    listed = at
                    negative, at = read_varint(data, at)
                    length, at = read_varint(data, at)
                    span = data[listed : at + length]
                    found = known.get(span)
                    if found is None:
                        if len(known) > 10_000:
                            known.clear()
                        found = known[span] = _read_headers(data[at : at + length], -negative)
                    headers = found
                    at += length
                at += 1
                value = None
                if data[at]:
                    length = data[at + 1]
                    if length < 0x80:
                        length >>= 1
                        at += 2
                    elif (high := data[at + 2]) < 0x80:
                        length = (high << 7 | length & 0x7F) >> 1
                        at += 3
                    else:
                        length, at = read_varint(data, at + 1)
                    value = data[at : at + length]
                    at += length
                else:
                    at += 1
                add(new(kind, (topic, partition, offset >> 1, appended, key, value, headers)))
        except (IndexError, UnicodeDecodeError) as error:
            raise ArchiveDamaged(f"a record cannot be read: {error}") from error
        if at != len(data):
            raise ArchiveDamaged("a block is longer than its records")
        return out
