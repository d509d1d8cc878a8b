"""What an edge agent does after an hour cut off, with many sessions open, and when nothing happens.

* drain: facts per second that leave a journal through the real ingress into Kafka, each acknowledged and deleted.
  Baseline: the same facts handed by the same client to the same ingress out of memory, without a journal.
* memory: resident set of an agent that is cut off, with 10,000 viewer sessions open. Baseline: the same agent without any.
* idle: CPU time of that agent while nothing comes, as a share of one core.

`python -m bench.edge_drain --json` prints one line of JSON per figure. FW_TEST_STACK names a running stack; else one is started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from uuid import uuid4

import psutil

from bench.edge import server
from bench.ingress import batched, events, served, stack
from bench.trigger_load import load
from edge_agent.journal_file import connect, prepare
from infra.kafka import apply
from infra.kafka.cluster import admin
from streams.ingress.client import Outgoing
from streams.telemetry import configure_logs
from streams.topics import Topics
from tests.edge_process import EdgeProcess

FACTS, SESSIONS, IDLE_SECONDS, ROUNDS = 200_000, 10_000, 20.0, 3
Figure = dict[str, object]


def fill(state_dir: Path, facts: Sequence[Outgoing]) -> None:
    """A journal as an hour without the platform leaves it."""
    state_dir.mkdir(parents=True)
    journal = connect(state_dir / "journal.db")
    prepare(journal)
    journal.execute("BEGIN")
    journal.executemany("INSERT INTO journal (value, at_ms) VALUES (?, 1)", [(fact.value,) for fact in facts])
    journal.execute("COMMIT")
    journal.close()


async def drained_per_second(directory: Path, ingress_port: int, facts: Sequence[Outgoing]) -> float:
    """From the first acknowledgement that is seen to the last fact's."""
    fill(directory, facts)
    async with EdgeProcess(directory, f"127.0.0.1:{ingress_port}") as edge:
        began, already = 0.0, 0.0
        while True:
            gauges = await edge.gauges()
            acknowledged = gauges.get("fw_edge_acknowledged_facts_total", 0.0)
            if acknowledged and not began:
                began, already = time.perf_counter(), acknowledged
            if acknowledged >= len(facts):
                break
            await asyncio.sleep(0.05)
        elapsed = time.perf_counter() - began
        await edge.drained()
        await edge.stop()
    with sqlite3.connect(directory / "journal.db") as journal:
        assert journal.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    return (len(facts) - already) / elapsed


async def drain(kafka: str, count: int, rounds: int) -> Figure:
    prefix = f"bench{uuid4().hex[:6]}."
    await apply(kafka, Topics(prefix))
    facts = events(count)
    ours, baseline = [], []
    try:
        with served(kafka, prefix) as (port, _), tempfile.TemporaryDirectory() as directory:
            await batched(port, facts[:10_000])  # warm
            for n in range(rounds):
                ours.append(await drained_per_second(Path(directory) / str(n), port, facts))
                began = time.perf_counter()
                await batched(port, facts)
                baseline.append(len(facts) / (time.perf_counter() - began))
    finally:
        async with admin(kafka) as client:
            await client.delete_topics([t.name for t in Topics(prefix).all()])
    return {
        "name": "edge: facts drained after a cut, from the journal to Kafka",
        "ours": round(max(ours)),
        "baseline": round(max(baseline)),
        "baseline_is": "the same facts out of memory",
        "unit": "facts/s",
        "target": 20_000,
        "rounds": {"ours": [round(n) for n in ours], "median": round(median(ours))},
    }


def resident(sessions: int, idle_seconds: float) -> tuple[Figure, Figure]:
    with tempfile.TemporaryDirectory() as directory, server("-m", "bench.edge", "--serve", directory) as (port, pid):
        agent = psutil.Process(pid)
        empty = agent.memory_info().rss
        load(port, pid, 600, at_most=sessions)
        time.sleep(2)  # its last answers are written, its last messages collected
        full = agent.memory_info().rss
        before, began = sum(agent.cpu_times()[:2]), time.perf_counter()
        time.sleep(idle_seconds)
        busy = (sum(agent.cpu_times()[:2]) - before) / (time.perf_counter() - began)
    memory: Figure = {
        "name": f"edge: memory with {sessions:,} viewer sessions open",
        "ours": round(full / (1 << 20), 1),
        "baseline": round(empty / (1 << 20), 1),
        "baseline_is": "no session",
        "unit": "MiB",
        "target": 150,
        "lower_is_better": True,
    }
    idle: Figure = {
        "name": "edge: CPU of an agent to which nothing comes, of one core",
        "ours": round(100 * busy, 2),
        "unit": "%",
        "target": 1,
        "lower_is_better": True,
    }
    return memory, idle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON per figure")
    parser.add_argument("--facts", type=int, default=FACTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    configure_logs("bench", "warning")
    figures = list(resident(SESSIONS, IDLE_SECONDS))
    with stack() as servers:
        figures.insert(0, asyncio.run(drain(servers.kafka, options.facts, options.rounds)))
    for one in figures:
        beside = f" ({one['baseline_is']}: {one['baseline']})" if "baseline" in one else ""
        print(json.dumps(one) if options.json else f"{one['name']}: {one['ours']} {one['unit']}{beside}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
