"""Rebuilds as `fw rebuild` does them, from the log: a Postgres projection and a ClickHouse table, beside their live workers.

The time is that of the replay, without comparing and flipping; ClickHouse's is also told per core that was busy with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import postgres_projection
from bench.empty_build import topics_of
from bench.facts import databases, facts, fill, worker_rate
from bench.faust_read import servers
from infra.embedded.stack import Stack
from projections.rebuild.progress import Progress
from projections.rebuild.run import rebuild
from projections.rebuild.site import open_site
from projections.worker import projection_of
from streams.batch_process import tune
from streams.settings import read_settings
from streams.topics import Topics


async def rate(name: str, stack: Stack, topics: Topics) -> tuple[float, float]:
    """Records per second of a rebuild, and per second of our process's own work."""
    async with databases(stack) as of:
        with TemporaryDirectory() as directory:
            settings = read_settings(
                os.environ
                | {
                    "FW_DATA_DIR": str(Path(directory)),
                    "FW_KAFKA_BOOTSTRAP": stack.kafka,
                    "FW_POSTGRES_URL": of.postgres,
                    "FW_CLICKHOUSE_URL": of.clickhouse,
                    "FW_TOPIC_PREFIX": topics.prefix,
                    "FW_SECRET_KEY": "00" * 32,
                    "FW_OPERATOR_TOKEN": "bench",
                }
            )
            replayed: list[tuple[float, float]] = []
            busy = time.process_time()

            def said(sentence: str) -> None:
                if sentence.startswith("replayed"):
                    replayed.append((progress.events_per_second, progress.events / (time.process_time() - busy)))

            progress = Progress(said)
            async with open_site(projection_of(name), settings, progress) as site:
                await rebuild(site)
            return replayed[0]


async def run(decisions: int, facts_count: int) -> list[dict[str, object]]:
    postgres_topics = Topics(f"bench{secrets.token_hex(3)}.")
    with servers() as stack:
        await postgres_projection.fill(stack.kafka, postgres_topics, decisions)
        ours, _ = await rate("streams", stack, postgres_topics)
        worker = await postgres_projection.measure("batches", stack, postgres_topics, decisions)
        async with topics_of(stack.kafka) as topics:
            await fill(stack.kafka, topics.facts, facts(facts_count))
            clickhouse, per_core = await rate("viewer_sessions", stack, topics)
            clickhouse_worker = await worker_rate("viewer_sessions", stack, topics, facts_count)
    live = "the live worker that catches up"
    return [
        {
            "name": "rebuild of the streams projection",
            "ours": round(ours),
            "unit": "events/s",
            "baseline": round(worker),
            "baseline_is": live,
            "target": 60_000,
        },
        {
            "name": "rebuild of a ClickHouse fact table",
            "ours": round(clickhouse),
            "unit": "facts/s",
            "baseline": round(clickhouse_worker),
            "baseline_is": live,
            "target": 120_000,
        },
        {"name": "the same, per second of the rebuild's own work", "ours": round(per_core), "unit": "facts/s", "target": 120_000},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--decisions", type=int, default=300_000)
    parser.add_argument("--facts", type=int, default=400_000)
    arguments = parser.parse_args()
    tune()  # as `fw rebuild` does
    for result in asyncio.run(run(arguments.decisions, arguments.facts)):
        print(json.dumps(result) if arguments.json else f"{result['name']}: {result['ours']:,} {result['unit']}")


if __name__ == "__main__":
    main()
