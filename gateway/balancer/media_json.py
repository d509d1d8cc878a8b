"""JSON as MistServer prints it for people: byte for byte what its own balancer answers (recordings of CONTRACT 6.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

Value = str | int | float | Mapping[str, "Value"] | Sequence["Value"]


def pretty(value: Value, indent: int = 0) -> str:
    """Objects one member a line, sorted; arrays in one line; fractions with ten digits."""
    inner, outer = " " * (indent + 2), " " * indent
    match value:
        case str():
            return orjson.dumps(value).decode()
        case float():
            return f"{value:.10f}"
        case Mapping():
            members = ",\n".join(f"{inner}{pretty(key)}:{pretty(value[key], indent + 2)}" for key in sorted(value))
            return f"{{\n{members}\n{outer}}}" if members else "{}"
        case Sequence():
            elements = ", ".join(pretty(element, indent + 2) for element in value)
            return f"[\n{inner}{elements}\n{outer}]" if value else "[]"
        case _:
            return str(value)
