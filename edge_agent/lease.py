"""Asking the platform whether another node has a publisher of a stream."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from streams.ingress.lease import LEASE_SECONDS, LeaseAnswer


class Lease(Protocol):
    """The platform, as an edge asks it."""

    async def ask(self, stream_id: UUID, node_id: str, ingest_id: UUID, deadline_seconds: float = LEASE_SECONDS) -> LeaseAnswer:
        """Never raises, and never takes longer than the deadline: then the answer is UNREACHABLE."""
