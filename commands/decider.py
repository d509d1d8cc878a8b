"""What a decider is: the rules of one kind of aggregate, as values and pure functions.

Invariant: `decide` and `evolve` know nothing but their arguments: no clock, no ids, no I/O. `decide` raises nothing but
Rejected; `evolve` is total, so whatever was once decided can always be folded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeGuard, TypeVar

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Decider(Generic[C, S, E]):
    name: str
    initial: S
    decide: Callable[[C, S], Sequence[E]]
    evolve: Callable[[S, E], S]
    commands: frozenset[type]
    events: frozenset[type]

    def takes(self, command: object) -> TypeGuard[C]:
        """Whether a command is one of its own."""
        return type(command) in self.commands
