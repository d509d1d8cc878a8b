"""Of which time a question is, and what of it was known when: `at` and `known_at`.

`at` is event time: how things stood at that moment, an end that came later not counted. `known_at` is append time: only facts
that the log had by then. They are independent: "viewers at 14:05 as we knew it at 15:00".

Invariant: rows show the first offset at which a fact stands (`clickhouse_tables`), so a resend changes no answer about the past;
and `upto`, the last offsets that an answer was computed from, gives the same answer for ever, also where `known_at` does not:
a fact can be on the log for some milliseconds before its row is in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

FOR_EVER: Final = 1 << 62
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def from_milliseconds(ms: int) -> datetime:
    return _EPOCH + ms * _MILLISECOND


@dataclass(frozen=True, slots=True)
class Moment:
    """None: no limit. `upto` has the last offset that counts, by table (`viewer_left`)."""

    at: datetime | None = None
    known_at: datetime | None = None
    upto: Mapping[str, int] = field(default_factory=dict)

    def bound(self, *tables: str) -> Mapping[str, object]:
        """Parameters of a query over these tables: `at_ms`, `known_ms`, and `upto_…` for each."""
        at_ms = FOR_EVER - 1 if self.at is None else milliseconds(self.at)
        known_ms = FOR_EVER if self.known_at is None else milliseconds(self.known_at)
        return {"at_ms": at_ms, "known_ms": known_ms} | {f"upto_{t}": self.upto.get(t, FOR_EVER) for t in tables}


NOW: Final = Moment()


def known(table: str) -> str:
    """The condition that a row of the table was known."""
    return f"toUnixTimestamp64Milli(_appended_at) <= {{known_ms:Int64}} AND _offset <= {{upto_{table}:Int64}}"
