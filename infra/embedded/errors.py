"""The one exception that a person is meant to read: a sentence that says what is wrong and what to do."""

from __future__ import annotations

FAILED = 1
IN_USE = 3
PORT_TAKEN = 4
DAMAGED_DOWNLOAD = 5
DISK_FULL = 6


class CannotStart(Exception):
    """Shown as it is, without a trace; `exit_code` tells scripts the kind."""

    def __init__(self, sentence: str, exit_code: int = FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
