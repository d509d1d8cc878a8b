"""Relay connections: pages of rows with opaque cursors.

Invariant: `first` is checked here (1 to 100), a cursor belongs to one kind of list, and what is not selected is not computed:
edges and cursors are made when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.cursors import BadCursor, page_cursor, parse_page_cursor
from gateway.errors import ApiError
from gateway.limits import MAX_FIRST
from projections.pages import Key

Row_co = TypeVar("Row_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Edge(Generic[Row_co]):
    kind: str
    key: Key
    node: Row_co

    @property
    def cursor(self) -> str:
        return page_cursor(self.kind, self.key)


@dataclass(frozen=True, slots=True)
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@dataclass(frozen=True, slots=True)
class Connection(Generic[Row_co]):
    """One page. `keys` are the rows' sort keys, one a row."""

    kind: str
    nodes: Sequence[Row_co]
    keys: Sequence[Key]
    has_next: bool
    has_previous: bool
    total_count: int

    @property
    def edges(self) -> list[Edge[Row_co]]:
        kind = self.kind
        return [Edge(kind, key, node) for key, node in zip(self.keys, self.nodes, strict=True)]

    @property
    def page_info(self) -> PageInfo:
        return PageInfo(
            self.has_next,
            self.has_previous,
            page_cursor(self.kind, self.keys[0]) if self.keys else None,
            page_cursor(self.kind, self.keys[-1]) if self.keys else None,
        )


def page_size(first: int | None) -> int:
    """Raises ApiError outside of 1 to 100."""
    if first is None or not 1 <= first <= MAX_FIRST:
        raise ApiError("BAD_USER_INPUT", f"`first` must be from 1 to {MAX_FIRST}.")
    return first


def page_start(kind: str, after: str | None, types: tuple[type, ...]) -> Key | None:
    """The key behind which the page begins. Raises BadCursor where it is none of such a list."""
    if not after:
        return None
    key = parse_page_cursor(kind, after)
    if len(key) != len(types) or not all(type(part) is kind_of for part, kind_of in zip(key, types, strict=True)):
        raise BadCursor
    return key
