"""How long a consumer's fetch waits at the broker for a first record.

A node has one fetch at a time. One that leaves partitions out, because their last records have not been taken yet, holds them
up for as long as it waits for the others: it waits shortly (with 0.5 s a backlog was read at 20,000/s, not at 66,000). Any other
hurts nobody by waiting, for the broker answers at the first record: it waits long. Twenty consumers that asked twenty times a
second took a third of two cores from what is live, while nothing happened.

aiokafka has one setting for both, so the attributes of its fetcher are set before each request; the version is pinned.
"""

from __future__ import annotations

from typing import Any, Final

IDLE_MS: Final = 250
HELD_UP_MS: Final = 50
ENOUGH_BYTES: Final = 64 << 10  # with a linger, the broker answers at once when it has so much: then we are behind


def wait_as_it_fits(consumer: Any, linger_ms: int = 0) -> None:
    """For a consumer that is started. `linger_ms`: behind records, for how long more are collected by the broker."""
    fetcher = consumer._fetcher
    plan, fetch, has_brought = fetcher._get_actions_per_node, fetcher._proc_fetch_request, False

    def planned(assignment: Any) -> Any:
        is_lingering = linger_ms and has_brought
        fetcher._fetch_min_bytes = ENOUGH_BYTES if is_lingering else 1
        fetcher._fetch_max_wait_ms = linger_ms if is_lingering else HELD_UP_MS if fetcher._records else IDLE_MS
        return plan(assignment)

    async def fetched(*request: Any) -> Any:
        nonlocal has_brought
        has_brought = bool(await fetch(*request))
        return has_brought

    fetcher._get_actions_per_node, fetcher._proc_fetch_request = planned, fetched
