"""Whether the body of a fact is what its schema says, decided without making objects of it.

Invariant: what passes here can be read by every store: by the codec, by PostgreSQL (no zero byte in a text, no time outside of
its calendar) and by ClickHouse (parallel arrays of one length). So nothing that a node sends ends as a dead letter, and a
billing fact that cannot be read, which stops a projection, cannot come through this door.

A checker is Python text that is made from a schema once and walks over the bytes, a quarter of what reading them costs. What
has no length of its own in front (numbers, times, ids, enums, and what may be null of these) is a regular language: fields
that follow one another are one expression. Texts, bytes and arrays are walked over by their lengths. Whatever reaches beyond
the end raises IndexError, or ends elsewhere than at the end, and both are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from streams.meta_bytes import is_known
from streams.registry import by_id

Checker = Callable[[bytes, int], None]
"""Raises Malformed or IndexError unless the value, from the place on, is the rest of the record and nothing else."""
Match = Callable[[bytes, int], re.Match[bytes] | None]

LONG: Final = rb"(?:[\x80-\xff]{0,8}[\x00-\x7f]|[\x80-\xff]{9}[\x00\x01])"
_INT: Final = rb"(?:[\x80-\xff]{0,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"
_EVEN: Final = b"".join(rb"\x%02x" % n for n in range(128, 256, 2))
# From 1970 to 2248: what every store can hold.
TIME: Final = b"(?:[%s](?:[\\x80-\\xff]{0,4}[\\x00-\\x7f]|[\\x80-\\xff]{5}[\\x00-\\x03])|[%s])" % (
    _EVEN,
    b"".join(rb"\x%02x" % n for n in range(0, 128, 2)),
)
UUID: Final = rb"H[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_PLAIN: Final = {"long": LONG, "int": _INT, "boolean": rb"[\x00\x01]", "double": b".{8}", "float": b".{4}"}


class Malformed(ValueError):
    """What is wrong, and at which field."""


def long_at(value: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint of at most 64 bits, and where it ends. Raises IndexError, Malformed."""
    byte = value[at]
    at += 1
    number, shift = byte & 127, 7
    while byte > 127:
        byte = value[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if shift > 70 or number >> 64:
            raise Malformed("a number has more than 64 bits")
    return (number >> 1) ^ -(number & 1), at


def length_at(value: bytes, at: int, field: str) -> tuple[int, int]:
    """The length of a text or of bytes, and where they begin. Raises IndexError, Malformed."""
    length, at = long_at(value, at)
    if length < 0:
        raise Malformed(f"{field} has a length below zero")
    return length, at


def time_bytes(seconds: float) -> bytes:
    """A time since 1970 as it is written, with the high bytes first: of two that are as long, the later one is greater."""
    rest, out = int(seconds * 1000) << 1, bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out[::-1])


def check_text(text: bytes, field: str) -> None:
    """What remains to be asked of a text that is not plain."""
    if 0 in text:
        raise Malformed(f"{field} holds a zero byte")
    try:
        text.decode()
    except UnicodeDecodeError:
        raise Malformed(f"{field} is not UTF-8") from None


@cache
def checker(schema_id: int) -> Checker:
    """The checker of a schema's records, from Meta's last field on, the actor. ValueError: a type that no fact may have."""
    schema = by_id()[schema_id].schema
    fields = schema["fields"]
    assert isinstance(fields, list)
    assert is_known(schema)  # Meta is as `streams.meta_bytes` says, and its last field is a text
    arrays = [n for n, f in enumerate(fields) if isinstance(f["type"], dict) and f["type"]["type"] == "array"]
    parallel = {fields[n]["name"]: f"count{n}" for n in arrays} if schema["topic"] == "fw.samples" else {}
    patterns: dict[str, Match] = {}
    lines = list(_walk([("actor", "string"), *((f["name"], f["type"]) for f in fields[1:])], patterns, parallel))
    if len(parallel) > 1:
        lines.append(f"if not ({' == '.join(parallel.values())}):")
        lines.append("    raise Malformed('the arrays of a batch have different lengths')")
    lines.append("if i != len(v):")
    lines.append("    raise Malformed('bytes are missing at the end' if i > len(v) else f'{len(v) - i} bytes too many')")
    names: dict[str, Any] = {
        "Malformed": Malformed,
        "check_text": check_text,
        "length_at": length_at,
        "long_at": long_at,
        "many": many,
        **patterns,
    }
    exec("\n".join(["def check(v, i):", *_indented(lines)]), names)  # noqa: S102  made from our own schemas, and of nothing else
    made: Checker = names["check"]
    return made


def _regular(kind: Any) -> bytes | None:
    """The expression of a type whose values are a regular language; None: they have lengths."""
    match kind:
        case {"logicalType": "uuid"}:
            return UUID
        case {"logicalType": "timestamp-millis"}:
            return TIME
        case {"type": "enum", "symbols": symbols} if len(symbols) <= 64:
            return b"[%s]" % b"".join(rb"\x%02x" % (2 * n) for n in range(len(symbols)))
        case ["null", inner]:
            within = _regular(inner)
            return None if within is None else rb"(?:\x00|\x02" + within + b")"
        case {"type": "record", "fields": fields}:
            each = [_regular(f["type"]) for f in fields]
            return None if None in each else b"".join(e for e in each if e is not None)
        case {"type": str(plain)} | str(plain):
            return _PLAIN.get(plain)
    return None


def _walk(fields: Sequence[tuple[str, Any]], patterns: dict[str, Match], counts: Mapping[str, str]) -> Iterator[str]:
    """Lines that move `i` over fields that follow one another."""
    run: list[tuple[str, bytes]] = []
    for name, kind in fields:
        pattern = _regular(kind)
        if pattern is not None:
            run.append((name, pattern))
            continue
        yield from _run(run, patterns)
        run = []
        yield from _one(name, kind, patterns, counts.get(name, ""))
    yield from _run(run, patterns)


def _run(run: Sequence[tuple[str, bytes]], patterns: dict[str, Match]) -> Iterator[str]:
    if run:
        name = f"run{len(patterns)}"
        patterns[name] = re.compile(b"".join(pattern for _, pattern in run), re.DOTALL).match
        yield f"m = {name}(v, i)"
        yield "if m is None:"
        yield f"    raise Malformed('{', '.join(name for name, _ in run)}: not as the schema says')"
        yield "i = m.end()"


def _one(name: str, kind: Any, patterns: dict[str, Match], count: str) -> Iterator[str]:
    """Lines that move `i` over one value that has a length."""
    match kind:
        case "string" | "bytes" | {"type": "string" | "bytes"}:
            yield "n = v[i]"
            yield "if n & 129:"  # of two bytes and more, or below zero
            yield f"    n, i = length_at(v, i, '{name}')"
            yield "else:"
            yield "    n >>= 1"
            yield "    i += 1"
            if kind == "string" or (isinstance(kind, dict) and kind["type"] == "string"):
                yield "t = v[i:i + n]"
                yield "if 0 in t or not t.isascii():"
                yield f"    check_text(t, '{name}')"
            yield "i += n"
        case ["null", inner]:
            yield "n = v[i]"
            yield "i += 1"
            yield "if n == 2:"
            yield from _indented(_one(name, inner, patterns, ""))
            yield "elif n:"
            yield f"    raise Malformed('{name}: neither null nor a value')"
        case {"type": "record", "fields": fields}:
            yield from _walk([(f"{name}.{f['name']}", f["type"]) for f in fields], patterns, {})
        case {"type": "array", "items": items}:
            yield from _array(name, items, patterns, count or f"count{len(patterns)}")
        case _:
            raise ValueError(f"{name}: a fact cannot have the type {kind!r}")


def _array(name: str, items: Any, patterns: dict[str, Match], count: str) -> Iterator[str]:
    """Elements come in blocks, each behind their number; below zero, the size in bytes follows for those who skip it."""
    pattern, block = _regular(items), f"block_{count}"
    yield f"{count} = 0"
    yield f"{block}, i = long_at(v, i)"
    yield f"while {block}:"
    yield f"    if {block} < 0:"
    yield f"        {block} = -{block}"
    yield "        _, i = long_at(v, i)"
    yield f"    if {block} > len(v) - i:"  # an element has a byte at least
    yield f"        raise Malformed('{name}: more elements than bytes')"
    yield f"    {count} += {block}"
    if pattern is not None:
        yield f"    m = many({pattern!r}, {block}, v, i)"
        yield "    if m < 0:"
        yield f"        raise Malformed('{name}: an element is not as the schema says')"
        yield "    i = m"
    else:
        yield f"    for _ in range({block}):"
        yield from _indented(_indented(_one(name, items, patterns, "")))
    yield f"    {block}, i = long_at(v, i)"


def many(pattern: bytes, count: int, value: bytes, at: int) -> int:
    """Where `count` elements of a regular type end; -1: they are none."""
    while count > 0:
        now = min(count, 1000)
        found = _times(pattern, now)(value, at)
        if found is None:
            return -1
        at, count = found.end(), count - now
    return at


@lru_cache(maxsize=4096)
def _times(pattern: bytes, count: int) -> Match:
    return re.compile(b"(?:%s){%d}" % (pattern, count), re.DOTALL).match


def _indented(lines: Iterator[str] | Sequence[str]) -> Sequence[str]:
    return [f"    {line}" for line in lines]
