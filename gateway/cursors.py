"""Cursors: opaque to clients, checked when they come back.

Invariant: a cursor is never trusted. One that was not made here, or for another list or stream, raises BadCursor.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson

_EVENT: Final = struct.Struct(">B4sQQ")
_EVENT_VERSION: Final = 1
_LONGEST: Final = 1024


class BadCursor(Exception):
    """Not a cursor of this list or stream."""


@dataclass(frozen=True, slots=True)
class LogCursor:
    """How far a stream's events were delivered: the next offset in its facts partition and in its decisions partition."""

    facts: int
    decisions: int


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    if len(text) > _LONGEST:
        raise BadCursor
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadCursor from None


def event_cursor(stream_id: UUID, cursor: LogCursor) -> str:
    return _text(_EVENT.pack(_EVENT_VERSION, stream_id.bytes[-4:], cursor.facts, cursor.decisions))


def parse_event_cursor(stream_id: UUID, text: str) -> LogCursor:
    """Raises BadCursor: not ours, or of another stream."""
    data = _bytes(text)
    if len(data) != _EVENT.size:
        raise BadCursor
    version, stream, facts, decisions = _EVENT.unpack(data)
    if version != _EVENT_VERSION or stream != stream_id.bytes[-4:] or max(facts, decisions) >= 1 << 63:
        raise BadCursor
    return LogCursor(facts, decisions)


def page_cursor(kind: str, key: Sequence[object]) -> str:
    """Cursor of a row of a list: the row's sort key, of JSON types."""
    return _text(orjson.dumps((kind, *key)))


def parse_page_cursor(kind: str, text: str) -> tuple[object, ...]:
    """The sort key that a page continues behind. Raises BadCursor."""
    try:
        found = orjson.loads(_bytes(text))
    except ValueError:
        raise BadCursor from None
    if not isinstance(found, list) or len(found) < 2 or found[0] != kind:
        raise BadCursor
    return tuple(found[1:])
