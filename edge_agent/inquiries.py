"""Puts the questions of triggers to those who know: the platform, and tenants' servers.

Invariant: every question has a reply, in less time than the media server waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import assert_never
from uuid import UUID

from edge_agent.lease import Lease
from edge_agent.questions import AskLease, AskTenant, Question, Reply
from edge_agent.webhook import Webhooks
from streams.ingress.lease import LEASE_SECONDS, LeaseAnswer, LeaseOutcome


class Inquiries:
    """`lease` None: there is no platform to ask."""

    def __init__(
        self,
        node_id: str,
        lease: Lease | None,
        webhooks: Webhooks,
        secret_of: Callable[[UUID], bytes | None],
    ) -> None:
        self._node_id, self._lease, self._webhooks, self._secret_of = node_id, lease, webhooks, secret_of

    async def reply(self, question: Question) -> Reply:
        match question:
            case AskLease():
                return await self._ask_platform(question)
            case AskTenant():
                return await self._webhooks.ask(question.url, self._secret_of(question.tenant_id), question.body)
            case _:
                assert_never(question)

    async def _ask_platform(self, question: AskLease) -> LeaseAnswer:
        if self._lease is None:
            return LeaseAnswer(LeaseOutcome.UNREACHABLE)
        try:
            async with asyncio.timeout(LEASE_SECONDS + 0.25):  # the lease keeps its deadline itself; this is if it does not
                return await self._lease.ask(question.stream_id, self._node_id, question.ingest_id, LEASE_SECONDS)
        except TimeoutError:
            return LeaseAnswer(LeaseOutcome.UNREACHABLE)


def outcome(reply: Reply) -> tuple[str, str]:
    """Who replied, and what: for the counters."""
    if isinstance(reply, LeaseAnswer):
        return "platform", reply.outcome.value.lower()
    return "webhook", "unavailable" if reply.is_allowed is None else "allowed" if reply.is_allowed else "denied"
