"""One page of a longer list.

Invariant: a page is found by the key of the row before it, never by counting rows, so rows that appear or go do not shift it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row_co = TypeVar("Row_co", covariant=True)
Key = tuple[object, ...]
"""What a list is sorted by: of the JSON types, unique among the rows. The gateway makes opaque cursors of it."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Row_co]):
    items: Sequence[Row_co]
    keys: Sequence[Key]  # one an item: what `after` takes to go on behind it
    has_next: bool
    total_count: int  # of the whole list
