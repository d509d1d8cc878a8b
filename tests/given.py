"""Stories of deciders: given these events, when this command, then these events, or this refusal.

given(STREAM, tenant_registered(), stream_created()).when(RenameStream("Stage")).then(StreamRenamed("Stage"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Generic, TypeVar

from commands.decider import Decider
from streams.errors import Rejected

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Decided(Generic[E]):
    """What a decider said."""

    events: Sequence[E]
    rejected: Rejected | None

    def then(self, *expected: E) -> None:
        """Exactly these events, in this order; none of them: accepted, nothing to do."""
        assert self.rejected is None, f"refused with {self.rejected}"
        assert list(self.events) == list(expected)

    def then_rejected(self, code: str, field: str | None = None) -> None:
        """Refused with this code, about this input field, in a sentence that a person can act on."""
        assert self.rejected is not None, f"accepted with {self.events}"
        assert (self.rejected.code, self.rejected.field) == (code, field)
        assert self.rejected.message.endswith(".")
        assert len(self.rejected.message) >= 20


@dataclass(frozen=True, slots=True)
class Given(Generic[C, S, E]):
    decider: Decider[C, S, E]
    state: S

    def when(self, command: C) -> Decided[E]:
        try:
            return Decided(self.decider.decide(command, self.state), None)
        except Rejected as rejected:
            return Decided((), rejected)


def given(decider: Decider[C, S, E], *events: E) -> Given[C, S, E]:
    """The state that these events led to."""
    return Given(decider, reduce(decider.evolve, events, decider.initial))
