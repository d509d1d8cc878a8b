"""The media server as the running agent has it: its API, what keeps it set up, and what looks at it."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Final

from edge_agent.journal import Journal
from edge_agent.journal_file import Upkeep
from edge_agent.mist.freeing import Freer
from edge_agent.mist.keeper import Keeper
from edge_agent.mist.poller import Observe, Poller
from edge_agent.mist.settings import MistSettings
from edge_agent.node_state import NodeState

TRIGGER_URLS: Final = "mist_trigger_urls"  # in the journal: where handlers of ours may ever have pointed


class Link:
    """Run `tasks`; close it afterwards."""

    def __init__(self, settings: MistSettings, journal: Journal, state: NodeState, observe: Observe) -> None:
        self.api, self._journal = settings.api(), journal
        self._urls = former_urls(journal.known())
        self.keeper = Keeper(self.api, settings.desired(self._urls), observe, self._remember)
        self.poller = Poller(self.api, state, observe)
        self.freer = Freer(self.api, state, observe)

    def tasks(self) -> Sequence[Coroutine[None, None, None]]:
        return self.keeper.run(), self.poller.run(), self.freer.run()

    async def close(self) -> None:
        await self.api.close()

    def problems(self) -> list[str]:
        """Sentences for whoever asks whether everything is as it should be."""
        found = [f"the media server's API: {self.poller.problem}"] if self.poller.problem else []
        if self.keeper.missing:
            found.append(f"the media server lacks {self.keeper.missing} steps of its configuration")
        return [*found, *self.keeper.unmended]

    def _remember(self, url: str) -> None:
        if url not in self._urls:
            self._urls = (*self._urls, url)
            self._journal.write(Upkeep(known=((TRIGGER_URLS, json.dumps(self._urls)),)))

    def gauges(self) -> Iterator[tuple[str, str, float]]:
        keeper, poller = self.keeper, self.poller
        yield "fw_edge_mist_is_reachable", "1 while the media server's API answers.", float(poller.problem is None)
        yield "fw_edge_mist_missing_steps", "Steps that its configuration lacks.", keeper.missing
        yield "fw_edge_mist_poll_interval_seconds", "Between two looks at it.", poller.interval_seconds
        yield "fw_edge_mist_poll_cpu_seconds", "CPU that a look costs.", poller.cost_seconds

    def totals(self) -> Iterator[tuple[str, str, float]]:
        keeper, poller = self.keeper, self.poller
        yield "fw_edge_mist_looks", "Looks at the media server.", poller.looks_total
        yield "fw_edge_mist_failed_looks", "Looks that failed.", poller.failed_total
        yield (
            "fw_edge_mist_lost",
            "Viewings, publishers and pushes ended because it no longer lists them.",
            poller.truth.lost_total,
        )
        yield "fw_edge_mist_found", "Viewings, publishers and pushes that it lists and no trigger told.", poller.truth.found_total
        yield "fw_edge_mist_freed", "Streams freed of what a crash left of them.", self.freer.freed_total
        yield "fw_edge_mist_steps", "Changes made to its configuration.", keeper.steps_total
        yield "fw_edge_mist_refused_steps", "Changes that it did not take.", keeper.refused_total
        yield "fw_edge_mist_drift", "Steps that had to be done again.", keeper.drift_total


def former_urls(known: Mapping[str, str]) -> tuple[str, ...]:
    """Of what the journal remembers."""
    return tuple(json.loads(known.get(TRIGGER_URLS, "[]")))
