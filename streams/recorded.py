"""An event and where it stands on the log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

from streams.generated import Meta

E_co = TypeVar("E_co", covariant=True)
_TEXT = re.compile(r"([0-9]{1,5})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Recorded(Generic[E_co]):
    event: E_co
    meta: Meta
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place on the decisions topic, that a read can wait for. As text: `partition-offset`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises ValueError on anything else than what `str` gives."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("a position looks like 3-1042: take it from a mutation's answer")
        return cls(int(match[1]), int(match[2]))
