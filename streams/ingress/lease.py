"""What the platform answers when a node asks whether it may have the publisher of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

LEASE_SECONDS = 1.0
WATCHED = frozenset({"IngestStarted", "IngestEnded"})  # facts that confirm and end what was granted


class LeaseOutcome(Enum):
    GRANTED = "GRANTED"
    DENIED = "DENIED"
    UNREACHABLE = "UNREACHABLE"  # no answer in time: the node decides by what it knows itself


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """`held_by` of DENIED: the node that has a publisher of the stream; None: the tenant's limit of live streams is reached."""

    outcome: LeaseOutcome
    held_by: str | None = None
