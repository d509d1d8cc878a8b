"""All checks together, until they agree or nothing more can come.

Invariant: a run is good when every check is empty. What may only be late is waited for as long as patience lasts; what is wrong
for ever (doubled, invented, out of order) is not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from infra.chaos import check_commands, check_facts, check_projections, check_subscriptions
from infra.chaos.findings import Finding
from infra.chaos.ledger import Heard, Ledger, Operation
from infra.chaos.log import Entry, read_log
from infra.chaos.platform import Platform

PATIENCE_SECONDS: Final = 300.0
AGAIN_SECONDS: Final = 0.5


def of_log(
    operations: Sequence[Operation], messages: Sequence[Heard], log: Sequence[Entry], published: Collection[str]
) -> list[Finding]:
    """What ledger, log and subscriptions say of one another."""
    return [
        *check_commands.check(operations, log),
        *check_facts.check(operations, log),
        *check_subscriptions.check(messages, log, published),
    ]


async def check(
    platform: Platform, ledger: Ledger, published: Collection[str], say: Callable[[str], None]
) -> tuple[list[Finding], list[Entry]]:
    """The findings that remain, and the log that they were made from."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        log = await read_log(platform.kafka)
        operations, messages = await asyncio.to_thread(ledger.operations), await asyncio.to_thread(ledger.messages)
        found = await asyncio.to_thread(of_log, operations, messages, log, published)
        found += await check_projections.check_postgres(platform.postgres, log)
        found += await check_projections.check_clickhouse(platform.clickhouse, log)
        if not found or time.monotonic() > end or not any(finding.may_come for finding in found):
            return found, log
        say(f"{len(found)} things are not there yet, such as {found[0]}")
        await asyncio.sleep(AGAIN_SECONDS)
