"""Our scalars: how values stand in JSON, and what is accepted from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ariadne import ScalarType
from graphql import GraphQLError

from streams.recorded import Position

_I64: Final = 1 << 63


def write_datetime(value: object) -> str:
    if not isinstance(value, datetime):
        raise GraphQLError(f"no moment: {value!r}")
    at = value if value.tzinfo is UTC else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return at.isoformat("T", "milliseconds")[:-6] + "Z"


def read_datetime(value: object) -> datetime:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None:
        raise GraphQLError("A DateTime looks like 2026-11-21T01:23:45Z.")
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise GraphQLError("A DateTime lies between the years 1 and 9999 in UTC.") from None


def read_long(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_I64 <= value < _I64:
        raise GraphQLError("A Long is a whole number of up to 64 bits.")
    return value


def write_long(value: object) -> int:
    return read_long(value)


def write_position(value: object) -> str:
    return str(value)


def read_position(value: object) -> Position:
    try:
        return Position.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise GraphQLError("A Position looks like 3-1042: take it from a mutation's answer.") from None


def read_cursor(value: object) -> str:
    if not isinstance(value, str):
        raise GraphQLError("A Cursor is the text that an event carried.")
    return value


SCALARS: Final[Sequence[ScalarType]] = (
    ScalarType("DateTime", serializer=write_datetime, value_parser=read_datetime),
    ScalarType("Long", serializer=write_long, value_parser=read_long),
    ScalarType("Position", serializer=write_position, value_parser=read_position),
    ScalarType("Cursor", serializer=str, value_parser=read_cursor),
)
