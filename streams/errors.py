"""The four errors. All else is a bug: crash, be restarted."""

from __future__ import annotations


class Rejected(Exception):
    """The business says no: a value that reaches the client. `code` is stable for ever, `message` may improve."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(code, message, field)
        self.code, self.message, self.field = code, message, field


class Invalid(Exception):
    """Poison: bytes that do not mean what they should. Dead-letter the original, capped per partition, and go on."""


class Transient(Exception):
    """Did not work this time: retry in place with backoff, the offset stays where it is."""


class Superseded(Exception):
    """Another owns this now: exit."""
