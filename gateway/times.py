"""Times that a client asks about: `asOf`, `at`, `knownAt`.

Invariant: nobody gets an answer about a time that has not been. A future time is an error with the range of what can be asked,
never an empty answer that looks like one about the past.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from gateway.errors import ApiError
from gateway.scalars import write_datetime
from projections.moments import NOW, Moment

OUTSIDE: Final = "OUTSIDE_HISTORY"


def checked(name: str, moment: datetime, began_at: datetime | None = None) -> datetime:
    """The time, where it lies in history. Raises ApiError with the range."""
    now = datetime.now(UTC)
    if moment > now or (began_at is not None and moment < began_at):
        since = "" if began_at is None else f" from {write_datetime(began_at)}"
        raise ApiError(
            OUTSIDE, f"`{name}` lies outside of history: give a time{since} until now, which is {write_datetime(now)} here."
        )
    return moment


def moment_of(at: datetime | None, known_at: datetime | None) -> Moment:
    """Raises ApiError for what lies in the future."""
    if at is None and known_at is None:
        return NOW
    return Moment(None if at is None else checked("at", at), None if known_at is None else checked("knownAt", known_at))
