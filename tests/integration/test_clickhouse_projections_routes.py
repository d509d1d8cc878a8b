"""What the balancer would have decided: the engine's answer against the rules, for any decisions and any weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from uuid import uuid4

import pytest

from gateway.balancer.routes import fact
from infra.embedded.stack import Stack
from projections import samples
from projections.clickhouse import connect
from projections.clickhouse_store import ClickHouseStore
from projections.dead_letters import DeadLetters
from projections.model import TP
from projections.platform import connect as connect_postgres
from projections.platform import migrate
from projections.routes import what_if
from streams.balancing.geography import MILLION
from streams.balancing.score import (
    UNKNOWN_DISTANCE,
    Candidate,
    Choice,
    Measures,
    Purpose,
    Weights,
    order,
    parts,
)
from streams.topics import Topics
from tests.fact_log import NOON, FactLog, at, fresh

NODES = ("a", "b", "c", "d")


@pytest.fixture
async def store(stack: Stack, topics: Topics, database: str, clickhouse_database: str) -> AsyncIterator[ClickHouseStore]:
    await migrate(database)
    pool = await connect_postgres(database)
    letters = DeadLetters("samples", topics, stack.kafka, pool)
    store = ClickHouseStore(samples.PROJECTION, topics, pool, letters, await connect(clickhouse_database))
    await store.prepare()
    yield store
    await store.close()


def candidates(chance: Random) -> list[tuple[str, Measures]]:
    def share() -> int:
        return chance.choice((0, MILLION, chance.randrange(MILLION)))

    return [
        (
            node_id,
            Measures(
                share(),
                share(),
                chance.choice((share(), 3 * MILLION)),
                chance.choice((UNKNOWN_DISTANCE, share())),
                chance.random() < 0.3,
                chance.choice((0, 0, -700, 40)),
                chance.random() < 0.2,
            ),
        )
        for node_id in NODES
        if chance.random() < 0.8
    ]


def chosen(weights: Weights, measured: list[tuple[str, Measures]]) -> Choice:
    """By the rules; of the candidates one that is not kept is spoken of."""
    found = [Candidate(node_id, m, parts(weights, m).total) for node_id, m in measured]
    return Choice(sorted(found, key=order), len(found) + (found != []), [])


def any_weights(chance: Random) -> Weights:
    return Weights(*(chance.choice((0, 1, 50, 500, chance.randrange(100_001))) for _ in range(5)))


async def test_other_weights_decide_as_the_rules_would_have(store: ClickHouseStore) -> None:
    chance = Random(7)
    log = FactLog(TP("fw.samples", 3))
    decisions: list[tuple[str, list[tuple[str, Measures]], Choice]] = []
    for n in range(400):
        tenant_id, stream_id = fresh()
        measured, country, held = candidates(chance), chance.choice(("", "NL", "AU")), any_weights(chance)
        choice = chosen(held, measured)
        decisions.append((country, measured, choice))
        event, event_id = fact(Purpose.VIEWER, "HLS", country or None, None, held, choice), uuid4()
        for _ in range(1 + (n % 5 == 0)):  # some stand on the log twice
            log.say(event, tenant_id, stream_id, at(n), event_id)
    log.say(fact(Purpose.INGEST, "RTMP", None, None, Weights(), chosen(Weights(), [])), *fresh(), at(1))
    await store.load_offsets([log.tp])
    for start in range(0, len(log.records), 37):
        await store.apply(log.tp, log.records[start : start + 37])
    for weights in (Weights(), Weights(0, 0, 0, 0, 0), *(any_weights(chance) for _ in range(10))):
        expected = Counter(
            (country, choice.winner or "", chosen(weights, measured).winner or "") for country, measured, choice in decisions
        )
        found = await what_if(store.clickhouse, weights, NOON, at(400))
        assert {(m.country, m.went, m.would): m.decisions for m in found} == dict(expected)
        assert sum(m.truncated for m in found) == sum(bool(measured) for _, measured, _ in decisions)
    half = await what_if(store.clickhouse, Weights(), NOON + timedelta(seconds=100), at(200))
    assert sum(m.decisions for m in half) == 100
    assert sum(m.decisions for m in await what_if(store.clickhouse, Weights(), NOON, at(400), "INGEST")) == 1
