"""Broken inputs made of good ones: bytes, lines and fields cut, doubled, swapped and replaced, the same at every run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from infra.recordings import names, read

NASTY = (
    b"", b"\n", b"\n\n", b"\r\n", b"\0", b"\xff\xfe", b"-1", b"18446744073709551615", b"9" * 40, b"true", b"false", b"null",
    b"{}", b"[]", b'{"a":' * 50, b"live+lobby", b"live+", b"sk_abcd2345_0123456789abcdefghijkl", b"%0A", b"::1", b"1e400", b"NaN",
    "\u2028".encode(), "é".encode(), b"A" * 5000, b"a.b.c", b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.", b"\xed\xa0\x80",
)  # fmt: skip


def recorded() -> Sequence[tuple[str, bytes]]:
    """(trigger, body) of everything that was ever recorded, each once."""
    found = {(line.name, line.body.encode()) for name in names() for line in read(name)}
    return sorted(found)


def _bytes(chance: random.Random, body: bytes) -> bytes:
    at, to = sorted((chance.randint(0, len(body)), chance.randint(0, len(body))))
    return chance.choice(
        (
            body[:at] + body[min(to, at + 8) :],
            body[:at] + chance.choice(NASTY) + body[at:],
            body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :],
            body[:at],
            body[:at] + body[at:to][:200] * 2 + body[to:],
        )
    )


def _lines(chance: random.Random, body: bytes) -> bytes:
    lines = body.split(b"\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = chance.choice(NASTY)
        case 4:
            lines.insert(at, chance.choice(NASTY))
        case _:
            lines.append(b"")
    return b"\n".join(lines)


def mutants(corpus: Sequence[tuple[str, bytes]], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(trigger, body): mostly a mutated body under its own name, sometimes under another's."""
    chance = random.Random(seed)
    every = sorted({name for name, _ in corpus})
    for _ in range(count):
        name, body = chance.choice(corpus)
        for _ in range(chance.randint(1, 4)):
            body = chance.choice((_bytes, _lines, _lines))(chance, body)
        yield (name if chance.random() < 0.9 else chance.choice(every)), body[: 1 << 16]
