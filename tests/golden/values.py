"""Two fixed values of every schema, from the schema alone: one with everything in it, one with as little as it allows.

Deterministic: the same schema gives the same bytes on every machine, so a golden file can be checked against its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from io import BytesIO
from uuid import UUID, uuid5

import fastavro

from streams import codec
from streams.ids import NAMESPACE
from streams.registry import Registered

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
LEAST: Mapping[str, object] = {"string": "", "bytes": b"", "boolean": False, "int": 0, "long": 0, "double": 0.0}
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def number(path: str, below: int) -> int:
    return int.from_bytes(sha256(path.encode()).digest()[:8]) % below


def value(kind: object, path: str, full: bool) -> object:
    """A value of this type; `path` makes it another than its neighbours'."""
    if isinstance(kind, list):
        return value(kind[1], path, full) if full else None
    if isinstance(kind, str):
        return primitive(kind, path) if full else LEAST[kind]
    assert isinstance(kind, dict)
    match kind["type"], kind.get("logicalType"):
        case "record", _:
            return {f["name"]: value(f["type"], f"{path}.{f['name']}", full) for f in kind["fields"]}
        case "array", _:
            return [value(kind["items"], f"{path}[{n}]", full) for n in range(2)] if full else []
        case "enum", _:
            return kind["symbols"][number(path, len(kind["symbols"])) if full else 0]
        case "string", "uuid":
            return str(uuid5(NAMESPACE, path))
        case "long", "timestamp-millis":
            return NOON + timedelta(milliseconds=number(path, 10**10)) if full else NOON
        case name, _:
            return value(name, path, full)


def primitive(name: str, path: str) -> object:
    match name:
        case "string":
            return f"{path.rpartition('.')[2]} é✓\n{number(path, 1000)}"
        case "bytes":
            return sha256(path.encode()).digest()
        case "boolean":
            return True
        case "int":
            return number(path, 2**31)
        case "long":
            return number(path, 2**53)
        case "double":
            return number(path, 10**6) / 64
    raise AssertionError(f"no golden value for {name}: add one")


def written(registered: Registered, full: bool) -> bytes:
    """The framed bytes of that value, by the schema itself; our own encoder has no part in it."""
    out = BytesIO()
    fastavro.schemaless_writer(out, dict(registered.schema), value(registered.schema, registered.name, full))
    return codec.frame(registered.id, out.getvalue())


def as_json(thing: object) -> Json:
    """A decoded record, written down."""
    match thing:
        case StrEnum():
            return str(thing)
        case None | bool() | int() | float() | str():
            return thing
        case UUID():
            return str(thing)
        case bytes():
            return thing.hex()
        case datetime():
            return thing.isoformat()
        case Mapping():
            return {str(k): as_json(v) for k, v in thing.items()}
        case list() | tuple():
            return [as_json(v) for v in thing]
    if is_dataclass(thing):
        return {f.name: as_json(getattr(thing, f.name)) for f in fields(thing)}
    raise TypeError(f"cannot be written down: {thing!r}")
