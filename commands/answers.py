"""The answers that were given, by command: a command that comes again is answered again, never executed again.

Invariant: of any record of the command topic that was decided or answered, either the answer is remembered or the record is
older than the window, and then it is refused unseen. So nothing takes effect twice, however late or often it comes, also when
the worker has to begin at the start of the command topic again. Time is the time at which commands were issued; no clock is
involved, so folding the log gives the same memory as having written it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from streams.codec import decode
from streams.generated import CommandHandled, Meta

WINDOW: Final = timedelta(days=1)

EXPIRED: Final = "COMMAND_EXPIRED"
KEY_REUSED: Final = "IDEMPOTENCY_KEY_REUSED"
CLOCK_AHEAD: Final = "CLOCK_AHEAD"
FAILED: Final = "COMMAND_FAILED"
UNDECIDED: Final = frozenset({EXPIRED, CLOCK_AHEAD, FAILED})
"""Codes which say that the command was not decided: no answer to remember, and no proof that time has passed."""


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: CommandHandled
    meta: Meta
    last_issued_at: datetime  # of the command, or of its latest repetition


@dataclass(slots=True)
class _Kept:
    """An outcome as it lies on the log; most are never asked for."""

    value: bytes
    last_issued_at: datetime


class Answers:
    """Answers of the last day, and the newest time seen. Changed by `remember` and `remember_bytes` alone."""

    def __init__(self, window: timedelta = WINDOW) -> None:
        self._window = window
        self._answers: OrderedDict[UUID, Answer | _Kept] = OrderedDict()  # in the order in which they were last given
        self._newest = datetime.min.replace(tzinfo=UTC)
        self.horizon = self._newest
        """What was issued before it may have been forgotten."""

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, command_id: UUID) -> Answer | None:
        kept = self._answers.get(command_id)
        if not isinstance(kept, _Kept):
            return kept
        outcome, meta = decode(kept.value)
        assert isinstance(outcome, CommandHandled)
        return Answer(outcome, meta, kept.last_issued_at)

    def remember(self, outcome: CommandHandled, meta: Meta) -> None:
        """Takes an outcome from the log, or one that is about to be written there."""
        issued_at = meta.occurred_at
        if outcome.code in UNDECIDED or issued_at < self.horizon:
            return
        if not self._is_known(outcome.command_id, issued_at):
            self._answers[outcome.command_id] = Answer(outcome, meta, issued_at)
        self._is_seen(issued_at)

    def remember_bytes(self, command_id: UUID, issued_at: datetime, value: bytes) -> None:
        """The same for an outcome that can be read, and whose code is not one of UNDECIDED, without reading it."""
        if issued_at < self.horizon:
            return
        if not self._is_known(command_id, issued_at):
            self._answers[command_id] = _Kept(value, issued_at)
        self._is_seen(issued_at)

    def _is_known(self, command_id: UUID, issued_at: datetime) -> bool:
        known = self._answers.get(command_id)
        if known is None:
            return False
        if issued_at > known.last_issued_at:
            # The repetition lies on the command topic, too: until it is too old itself, its answer is needed.
            match known:
                case _Kept():
                    self._answers[command_id] = _Kept(known.value, issued_at)
                case Answer():
                    self._answers[command_id] = Answer(known.outcome, known.meta, issued_at)
            self._answers.move_to_end(command_id)
        return True

    def _is_seen(self, issued_at: datetime) -> None:
        if issued_at > self._newest:
            self._newest = issued_at
            self.horizon = issued_at - self._window
            self._forget()

    def _forget(self) -> None:
        # From the front: one behind a younger one is kept a little longer than it must be, which harms nobody.
        answers = self._answers
        while True:
            command_id = next(iter(answers))
            if answers[command_id].last_issued_at >= self.horizon:
                return
            del answers[command_id]
