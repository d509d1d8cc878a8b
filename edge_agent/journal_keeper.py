"""What the journal needs beside triggers: what was counted or given up is said, and what is wanted again is sent again.

Invariant: a fact that says what was given up, and the forgetting of that, are one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from edge_agent.agent import Agent
from edge_agent.journal import Journal
from edge_agent.journal_budget import dropped_fact
from edge_agent.journal_file import Upkeep
from edge_agent.metrics import Metrics
from edge_agent.uplink import Uplink
from streams.codec import encode
from streams.generated import Fact, Meta

ALMOST_FULL: Final = 0.8
DROPPED_EVERY_MS: Final = 60_000


class JournalKeeper:
    """Of one agent; `Service.keep_tidy` calls it every few seconds."""

    def __init__(self, agent: Agent, journal: Journal, metrics: Metrics) -> None:
        self._agent, self._journal, self.metrics = agent, journal, metrics
        self._dropped_said_ms = 0

    def say_counted(self, now: int, *, at_once: bool = False) -> None:
        """Writes what was counted and is due; at the agent's end all of it."""
        if facts := self._agent.counted(now, at_once=at_once):
            self._journal.write(Upkeep(facts=self._encoded(facts), at_ms=now))

    async def tidy(self, now: int) -> None:
        """Sends again what somebody took out of quarantine, and says what was given up: once there is room again, or at times."""
        journal = self._journal
        if await asyncio.to_thread(journal.is_any_wanted):
            journal.write(Upkeep(does_retry=True))
        is_due = not journal.is_giving_up or now >= self._dropped_said_ms + DROPPED_EVERY_MS
        if journal.problem is None and is_due and (dropped := await asyncio.to_thread(journal.dropped)):
            self._dropped_said_ms = now
            fact = dropped_fact(self._agent.node, dropped, now)
            journal.write(Upkeep(facts=self._encoded([fact]), at_ms=now, dropped_said=dropped))

    def _encoded(self, facts: Sequence[tuple[Fact, Meta]]) -> tuple[tuple[bytes, str | None], ...]:
        for fact, _ in facts:
            self.metrics.count_fact(type(fact).__name__)
        return tuple((encode(fact, meta), None) for fact, meta in facts)

    def warnings(self, uplink: Uplink) -> list[str]:
        """What does not hinder the answering of triggers, and still wants somebody."""
        journal = self._journal
        warnings = []
        if journal.is_over_budget:
            warnings.append("the journal is over its byte budget and has nothing left to give up: let the node reach the ingress")
        elif journal.is_giving_up:
            warnings.append("the journal is at its byte budget: samples and changes are given up, oldest first")
        elif journal.depth.size_bytes > journal.budget_bytes * ALMOST_FULL:
            warnings.append(f"the journal has used {journal.depth.size_bytes / journal.budget_bytes:.0%} of its byte budget")
        if uplink.publishing.problem and journal.depth.rows:
            warnings.append(f"{journal.depth.rows} facts wait for the platform: {uplink.publishing.problem}")
        if quarantined := uplink.progress.quarantined_total:
            warnings.append(f"{quarantined} facts were refused since the agent started: `fw edge journal list` says why")
        return warnings
