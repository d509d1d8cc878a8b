"""How answers are read: exactly what is needed of them, and nothing that does not have the shape of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from streams.errors import Transient

T = TypeVar("T")


def without_nulls(value: object) -> object:
    """Without the fields that are null: so MistServer tells what it does not know, as of a stream that just ended."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return value


def part(answer: Mapping[str, object], name: str, kind: type[T]) -> T:
    """The answer to one command. Transient: it is missing or is shaped otherwise, as while MistServer starts."""
    if name not in answer:
        raise Transient(f"MistServer's answer has no {name!r}")
    try:
        return msgspec.convert(without_nulls(answer[name]), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Transient(f"MistServer's answer to {name!r} is shaped otherwise than expected: {error}") from None
