"""News of the policy: what passes between the feed, the server, the client and the edge."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from streams.privacy.envelope import DayKeys


@dataclass(frozen=True, slots=True)
class Signed:
    """A record of the policy, framed, and the platform's signature over it."""

    value: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """Up to where a node knows the policy: offsets per partition of the policy topic, and what they are offsets of."""

    snapshot: bytes
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PolicyNews:
    """Records as they are now. Of a snapshot: all that exist for the node, in one or more parts. None: the ingress lives."""

    records: tuple[Signed, ...] = ()
    of_snapshot: bool = False
    is_complete: bool = False  # the snapshot ends here
    known: Known | None = None  # what a node knows that has taken everything up to here; None: more belongs to it
    secrets: tuple[tuple[UUID, bytes], ...] = ()
    days: tuple[DayKeys, ...] = ()  # what sealing needs; none: nothing changed
    public_key: bytes = b""
    confirmed: Signed | None = None  # a PolicyConfirmed that this connection was not told yet
