"""Decisions of the balancer over 200 nodes on one core: the rules alone, and all that a gateway does for one (fleet, reservation,
fact queued and encoded).

Baseline of the same run: the rules applied plainly, node by node (`score.choose`).

`python -m bench.balancer --json` prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from gateway.balancer.balancer import Asked, Balancer
from gateway.balancer.routes import Routes, meta_of
from projections.model import Database
from streams.balancing.fleet import Fleet
from streams.balancing.geography import MILLION, cell_of
from streams.balancing.score import Ceilings, Node, Purpose, Question, Weights, choose
from streams.codec import encode
from streams.generated import Meta, NodeMode, NodeRegistered, NodeSamples, ViewerRouted
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.kafka import idempotent_producer
from streams.topics import Topics

NODES = 200
SECONDS = 3.0
NOW_MS = 1_795_000_000_000
VIEWER_BYTES_PER_SECOND = 131_072
QUESTIONS = 5000


def nodes(chance: random.Random, tenants: list[UUID]) -> list[Node]:
    return [
        Node(
            f"edge-{n:03}",
            None if n % 4 else frozenset(chance.sample(tenants, 2)),
            mode=NodeMode.DRAINING if n % 50 == 49 else NodeMode.ACTIVE,
            tags=frozenset({"blue"}) if n % 3 else frozenset(),
            cell=cell_of(chance.uniform(-60, 70), chance.uniform(-180, 180)),
            sampled_at_ms=NOW_MS,
            cpu_ppm=chance.randrange(950_000),
            ram_ppm=chance.randrange(950_000),
            up_bytes_per_second=chance.randrange(100 << 20),
            limit_bytes_per_second=1 << 30,
        )
        for n in range(NODES)
    ]


def questions(chance: random.Random, tenants: list[UUID]) -> list[Question]:
    """As they come: viewers all over the world, of streams that are on one to three nodes."""
    places = [cell_of(chance.gauss(40, 20) % 90, chance.uniform(-180, 180)) for _ in range(1000)]
    return [
        Question(
            chance.choice(tenants),
            holders=frozenset(f"edge-{chance.randrange(NODES):03}" for _ in range(chance.randint(1, 3))),
            cell=chance.choice(places),
            tag_adjust={"blue": 10} if n % 10 == 0 else {},
        )
        for n in range(QUESTIONS)
    ]


def rate(decide: Callable[[Question], str | None], asked: list[Question]) -> float:
    """A second of our own CPU: what others do on the machine is not ours."""
    done, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        for question in asked[done % QUESTIONS : done % QUESTIONS + 50]:
            decide(question)
        done += 50
    return done / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    chance = random.Random(1)
    tenants = [UUID(int=n) for n in range(100)]
    all_nodes, asked = nodes(chance, tenants), questions(chance, tenants)
    fleet = Fleet(all_nodes, Weights(), Ceilings(), NOW_MS)

    def decided(question: Question) -> str | None:
        winner = fleet.choose(question).winner
        if winner is not None:
            fleet.reserve(winner, VIEWER_BYTES_PER_SECOND)
            fleet.reserve(winner, -VIEWER_BYTES_PER_SECOND)
        return winner

    def plainly(question: Question) -> str | None:
        return choose(all_nodes, question, Weights(), Ceilings(), NOW_MS, 16).winner

    baseline_is = "the rules applied node by node"
    baseline = rate(plainly, asked)
    for name, ours in (
        ("balancer: decisions over 200 nodes, one core", rate(decided, asked)),
        ("balancer: the same as a gateway does it, its fact included", asyncio.run(of_a_gateway(all_nodes, asked))),
    ):
        figure = {
            "name": name,
            "ours": round(ours),
            "unit": "decisions/s",
            "baseline": round(baseline),
            "baseline_is": baseline_is,
            "target": 5000,
        }
        print(json.dumps(figure) if as_json else f"{name}: {ours:,.0f}/s ({baseline_is}: {baseline:,.0f}/s)")


async def of_a_gateway(nodes: list[Node], asked: list[Question]) -> float:
    """Through `Balancer.route`; what it queues is encoded as it would be for Kafka, and goes nowhere."""
    producer = idempotent_producer("127.0.0.1:1", "bench")  # never started
    routes = Encoded(producer, Topics().samples)
    balancer = Balancer(cast(Database, None), routes, Ceilings(), clock_ms=lambda: NOW_MS)  # names are not looked up here
    for node in nodes:
        about = node_uuid(node.node_id)
        tenants = None if node.tenants is None else tuple(node.tenants)
        meta = meta_of(OPERATOR_TENANT, about, "bench", NOW_MS)
        balancer.take(NodeRegistered(node.node_id, node.node_id, tenants, None, 50.0, 8.0, "https://x", tuple(node.tags)), meta)
        balancer.take(sample(node), meta)
    streams = {n: UUID(int=n) for n in range(1000)}

    def routed(question: Question) -> str | None:
        tenant_id = question.tenant_id
        ask = Asked(Purpose.VIEWER, tenant_id, streams[tenant_id.int], "HLS", question.cell, "NL", question.tag_adjust)
        return balancer.route(ask).choice.winner

    found = rate(routed, asked)
    await producer.stop()
    return found


class Encoded(Routes):
    """Routes that encode at once: the loop that empties the queue shares the gateway's core."""

    def record(self, event: ViewerRouted, meta: Meta) -> None:
        encode(event, meta)


def sample(node: Node) -> NodeSamples:
    at = (datetime.fromtimestamp(NOW_MS / 1000, UTC),)
    cpu, ram = node.cpu_ppm // 1000, node.ram_ppm
    return NodeSamples(node.node_id, at[0], at, (cpu,), (ram,), (MILLION,), (0,), (1,), (0,), (0,), (3,), (1,), (0,), 1 << 30)


if __name__ == "__main__":
    main()
