"""Bytes to events and back: Confluent framing (0x00, schema id in 4 bytes, Avro body).

Invariant: a record is read with the schema that it was written with and understood with today's. Fields that the writer did
not know have their defaults; a changed meaning would be a new event and one upcast here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from io import BytesIO
from typing import Any, Final

import fastavro
from asyncpg.pgproto.pgproto import UUID as CUUID

from streams.errors import Invalid
from streams.generated import READERS, WRITERS, Event, Meta, Policy, Record, write_Meta
from streams.meta_bytes import is_known, read_meta, write_meta
from streams.registry import Registered, by_id, by_name

MAGIC: Final = 0
PREFIX: Final = struct.Struct(">bI")
NEWER_IDS: Final = 1000
_UNREADABLE: Final = (EOFError, IndexError, KeyError, OverflowError, TypeError, ValueError, StopIteration)
Header = tuple[str, bytes]


def _uuid(text: str, _writer: object = None, _reader: object = None) -> CUUID:
    return CUUID(text)


fastavro.read.LOGICAL_READERS["string-uuid"] = _uuid


def frame(schema_id: int, body: bytes) -> bytes:
    return PREFIX.pack(MAGIC, schema_id) + body


class NewerSchema(Invalid):
    """A record of a newer version of the platform: nothing is wrong with it, so it must not be passed over."""


def schema_id(value: bytes) -> int:
    """Schema id of a framed value. Raises Invalid: not framed, or an id that nobody knows; NewerSchema: nobody yet.

    Ids count up, so a newer platform's are just above ours; a number far away is noise that happens to begin with 0x00.
    """
    if len(value) < PREFIX.size or value[0] != MAGIC:
        raise Invalid("not a framed Avro record: 0x00 and a schema id are missing at its beginning")
    number: int = PREFIX.unpack_from(value)[1]
    if number not in by_id():
        kind = NewerSchema if len(by_id()) < number <= len(by_id()) + NEWER_IDS else Invalid
        raise kind(f"schema id {number} is not known")
    return number


def name_of(value: bytes) -> str:
    """Record name of a framed value, without reading its body. Raises Invalid."""
    return by_id()[schema_id(value)].name


Read = Callable[[bytes], tuple[Record, Meta | None, int]]


@cache
def _reader(number: int) -> Read:
    """Reads values of one schema id: the record, its meta, and where it ends."""
    registered = by_id()[number]
    newest = by_name()[registered.name]
    build = READERS[registered.name]
    if is_known(registered.schema) and is_known(newest.schema):
        writer, reader = _parsed(registered, skip=1), None if newest.id == number else _parsed(newest, skip=1)

        def read_known(value: bytes) -> tuple[Record, Meta | None, int]:
            meta, at = read_meta(value, PREFIX.size)
            body = BytesIO(value)
            body.seek(at)
            return build(fastavro.schemaless_reader(body, writer, reader)), meta, body.tell()

        return read_known
    writer, reader = _parsed(registered), None if newest.id == number else _parsed(newest)

    def read(value: bytes) -> tuple[Record, Meta | None, int]:
        body = BytesIO(value)
        body.seek(PREFIX.size)
        fields: Any = fastavro.schemaless_reader(body, writer, reader)
        meta = fields.get("meta")
        return build(fields), None if meta is None else Meta(**meta), body.tell()

    return read


@cache
def body_reader(number: int) -> Callable[[bytes, int], tuple[Record, int]]:
    """Reads what stands behind a Meta as `streams.meta_bytes` knows it: the record, and where it ends. Raises Invalid."""
    registered = by_id()[number]
    newest = by_name()[registered.name]
    build = READERS[registered.name]
    writer, reader = _parsed(registered, skip=1), None if newest.id == number else _parsed(newest, skip=1)

    def read(value: bytes, at: int) -> tuple[Record, int]:
        body = BytesIO(value)
        body.seek(at)
        try:
            return build(fastavro.schemaless_reader(body, writer, reader)), body.tell()
        except _UNREADABLE as error:
            raise Invalid(f"{registered.name}: the body does not follow its schema: {error!r}") from error

    return read


@lru_cache(maxsize=1 << 16)
def short_id(text: bytes) -> CUUID:
    """The UUID of 36 characters; the same few come again and again."""
    return CUUID(text.decode("ascii"))


def _parsed(registered: Registered, skip: int = 0) -> Any:
    fields: Any = registered.schema["fields"]
    return fastavro.parse_schema({**registered.schema, "fields": fields[skip:]})


Write = Callable[[Any, Meta | None], bytes]


@cache
def _writer(kind: type[Any]) -> Write:
    registered = by_name()[kind.__name__]
    prefix = PREFIX.pack(MAGIC, registered.id)
    convert = WRITERS[kind]
    if is_known(registered.schema):
        body = fastavro.parse_schema({**registered.schema, "fields": _fields_behind_meta(registered.schema)})

        def write_known(record: Any, meta: Meta | None) -> bytes:
            if meta is None:
                raise ValueError(f"{kind.__name__} needs a meta")
            out = BytesIO()
            out.write(prefix)
            out.write(write_meta(meta))
            fastavro.schemaless_writer(out, body, convert(record))
            return out.getvalue()

        return write_known
    whole = fastavro.parse_schema(dict(registered.schema))

    def write(record: Any, meta: Meta | None) -> bytes:
        fields = convert(record)
        if meta is not None:
            fields["meta"] = write_Meta(meta)
        out = BytesIO()
        out.write(prefix)
        fastavro.schemaless_writer(out, whole, fields)
        return out.getvalue()

    return write


def _fields_behind_meta(schema: Mapping[str, object]) -> list[object]:
    fields = schema["fields"]
    return list(fields[1:]) if isinstance(fields, list) else []


def _decode(value: bytes) -> tuple[Record, Meta | None]:
    read = _reader(schema_id(value))
    try:
        record, meta, end = read(value)
    except _UNREADABLE as error:
        raise Invalid(f"{name_of(value)}: the body does not follow its schema: {error!r}") from error
    if end != len(value):
        raise Invalid(f"{name_of(value)}: {len(value) - end} bytes behind the body")
    return record, meta


def decode(value: bytes) -> tuple[Event, Meta]:
    """The event that a framed value is, and its meta. Raises Invalid with the reason; the original bytes stay with the caller."""
    event, meta = _decode(value)
    if meta is None or isinstance(event, Policy):
        raise Invalid(f"{name_of(value)} is no event: it has no meta")
    return event, meta


def decode_policy(value: bytes) -> Policy:
    """The policy that a framed value is. Raises Invalid."""
    record, _ = _decode(value)
    if not isinstance(record, Policy):
        raise Invalid(f"{name_of(value)} is no policy")
    return record


def _encode(record: Record, meta: Meta | None) -> bytes:
    return _writer(type(record))(record, meta)  # type: ignore[arg-type]  # a class is hashable; the stub of lru_cache says otherwise of unions


def encode(event: Event, meta: Meta) -> bytes:
    """The framed value of an event, with the newest schema of its name. Raises ValueError when it does not fit its schema."""
    return _encode(event, meta)


def encode_policy(policy: Policy) -> bytes:
    return _encode(policy, None)


def headers(event: Event, meta: Meta, traceparent: str | None = None) -> Sequence[Header]:
    """Kafka headers of an event: whose, which, and the trace that it belongs to."""
    out = [("tenant_id", str(meta.tenant_id).encode()), ("event_type", type(event).__name__.encode())]
    if traceparent:
        out.append(("traceparent", traceparent.encode()))
    return out
