"""Finding the one item at which the ingress fails, among many that it would take.

Invariants
* An item is given up only when it failed alone, again and again, while others of the same time passed: an ingress that fails at
  everything is broken itself, and then nothing is given up.
* The items of one aggregate go in their order, also here.

Numbers are places in the list that is searched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

SPLIT_AFTER: Final = 2  # failures of a group, until its halves are tried
GIVEN_UP_AFTER: Final = 5  # failures of an item by itself
UNEXPLAINED_GIVEN_UP_AFTER: Final = 20  # where the connection merely broke: mostly that is the line


class Isolation:
    """`part` is to be sent by itself; then say `passed` or `failed`. Done when there is no part."""

    def __init__(self, count: int, same_aggregate: Callable[[int, int], bool]) -> None:
        self._groups: deque[list[int]] = deque([list(range(count))] if count else [])
        self._same_aggregate = same_aggregate
        self._failures = self._unexplained = 0
        self.has_passed = False
        self.given_up: dict[int, str] = {}

    @property
    def part(self) -> Sequence[int] | None:
        return self._groups[0] if self._groups else None

    def passed(self) -> None:
        self._groups.popleft()
        self.has_passed = True
        self._failures = self._unexplained = 0

    def failed(self, problem: str, *, is_explained: bool) -> None:
        """`is_explained`: the ingress itself said that it failed; else the connection broke."""
        self._failures += is_explained
        self._unexplained += not is_explained
        group = self._groups[0]
        if len(group) > 1:
            if self._failures + self._unexplained >= SPLIT_AFTER:
                middle = len(group) // 2
                self._groups[0] = group[middle:]
                self._groups.appendleft(group[:middle])
                self._failures = self._unexplained = 0
        elif self._failures >= GIVEN_UP_AFTER or self._unexplained >= UNEXPLAINED_GIVEN_UP_AFTER:
            times, self._failures, self._unexplained = self._failures + self._unexplained, 0, 0
            if self.has_passed:
                self.given_up[group[0]] = f"the ingress failed at it {times} times, while it took others: {problem}"
                self._groups.popleft()
            else:
                self._try_another(group[0])

    def _try_another(self, suspect: int) -> None:
        """Nothing passed yet, so it may be the ingress: the first item of another aggregate tells."""
        for at, group in enumerate(self._groups):
            for place, item in enumerate(group):
                if at and not self._same_aggregate(suspect, item):
                    rest = [part for part in (group[:place], group[place + 1 :]) if part]
                    del self._groups[at]
                    for part in reversed(rest):
                        self._groups.insert(at, part)
                    self._groups.appendleft([item])
                    return
