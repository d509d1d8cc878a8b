"""Questions that a trigger leads to and this node cannot answer: put while the media server waits.

Invariant: a handler asks before it says or changes anything. Asking ends its turn; once there is a reply it is run again from the
beginning, with what is known then, and decides. What happened on the node in between is therefore never overlooked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

from streams.ingress.lease import LeaseAnswer, LeaseOutcome
from streams.playback.rules import WebhookSaid


@dataclass(frozen=True, slots=True)
class AskLease:
    """The platform: may this node have the publisher of the stream?"""

    stream_id: UUID
    ingest_id: UUID


@dataclass(frozen=True, slots=True)
class AskTenant:
    """The tenant's server: may this viewer watch?"""

    tenant_id: UUID
    url: str = field(repr=False)
    body: bytes = field(repr=False)


Question: TypeAlias = AskLease | AskTenant
Reply: TypeAlias = LeaseAnswer | WebhookSaid


class Unanswered(Exception):
    """Ends a turn that needs a reply first."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.question = question


def no_reply(question: Question) -> Reply:
    """What is decided by where nobody can be asked."""
    match question:
        case AskLease():
            return LeaseAnswer(LeaseOutcome.UNREACHABLE)
        case AskTenant():
            return WebhookSaid(None, "it was asked too often")
