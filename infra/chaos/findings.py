"""What a check found wrong, in the words of the promise."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Wrong(StrEnum):
    LOST = "lost"  # promised, and not there
    DOUBLED = "doubled"  # there more than once
    OUT_OF_ORDER = "out of order"
    INVENTED = "invented"  # there, and never sent
    DIFFERS = "differs"  # there, and not as it was sent or first answered


@dataclass(frozen=True, slots=True)
class Finding:
    """`what`: ids, for people. `where`: operation or place on the log. `may_come`: it may only be late."""

    wrong: Wrong
    what: str
    where: str
    may_come: bool = False

    def __str__(self) -> str:
        return f"{self.wrong}: {self.what} ({self.where})"
