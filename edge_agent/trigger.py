"""One trigger as it came over HTTP, and the ids that follow from it.

Invariant: everything that is derived from a trigger hangs on (node, X-Instance, X-Trigger, X-Trigger-UUID) alone, which a
retry repeats, so that handling a trigger twice says the same facts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class Trigger:
    """Name, body and the X-headers of one request (CONTRACT section 1)."""

    name: str
    body: bytes
    uuid: str  # one per event, the same on every retry; opaque
    instance: str  # one per start of the controller; empty on SYSTEM_START
    pid: int  # of the sending process: ties the triggers of a connection together
    unix_ms: int  # wall clock of the event, the same on every retry
    attempt: int = 1
    traceparent: str | None = None
    identity: bytes = field(init=False)
    """What a retry has in common with its original, and nothing else has."""

    def __post_init__(self) -> None:
        named = f"{self.instance}\0{self.name}\0{self.uuid}"
        self.identity = blake2b(named.encode(), digest_size=16).digest()

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.unix_ms / 1000, UTC)


def from_request(name: str, headers: Mapping[bytes, bytes], body: bytes, now_ms: int, spare_uuid: Callable[[], str]) -> Trigger:
    """A trigger of a request. `headers` by lower-case name. What a hand-made request leaves out is filled in: the time by
    now, the UUID by one that never comes again (so such a request cannot be recognised as a retry)."""
    unix_ms = _number(headers.get(b"x-trigger-unixmillis"), now_ms)
    return Trigger(
        name=name,
        body=body,
        uuid=headers.get(b"x-trigger-uuid", b"").decode("latin-1") or spare_uuid(),
        instance=headers.get(b"x-instance", b"").decode("latin-1"),
        pid=_number(headers.get(b"x-pid"), 0),
        unix_ms=unix_ms if unix_ms < 1 << 42 else now_ms,  # the year 2109: beyond it is no clock but noise
        attempt=_number(headers.get(b"x-attempt"), 1),
        traceparent=headers.get(b"traceparent", b"").decode("latin-1") or None,
    )


def _number(text: bytes | None, default: int) -> int:
    return int(text) if text and len(text) <= 18 and text.isdigit() else default
