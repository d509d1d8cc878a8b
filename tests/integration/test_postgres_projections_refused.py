"""What can be read but the database will not have: a fact is buried and its neighbours stay, a decision stops the line."""

from __future__ import annotations

import pytest

from infra.embedded.stack import Stack
from projections import streams
from streams.faust_batches.fetched import Halted
from streams.generated import StreamCreated, StreamRenamed, StreamWentLive
from streams.ids import new_id
from streams.topics import Topics
from tests import projection_log as log
from tests.integration.test_postgres_projections_store import feed, migrated, opened

__all__ = ["migrated"]


async def test_a_fact_that_the_database_refuses_is_buried_between_its_neighbours(
    migrated: str, topics: Topics, stack: Stack
) -> None:
    tenant, stream_ids = new_id(), [new_id() for _ in range(5)]
    said = log.Log(topics.facts.name)
    for n, stream_id in enumerate(stream_ids):
        node = "a\0b" if n == 2 else "n"
        said.append(3, StreamWentLive(node_id=node, internal_name="x"), log.meta(tenant, stream_id))
    async with opened(streams.PROJECTION, migrated, topics, stack.kafka) as store:
        await feed(store, *said.records.values())
        live = {row["stream_id"] for row in await store.pool.fetch("SELECT stream_id FROM streams WHERE live_at IS NOT NULL")}
        assert live == {*stream_ids[:2], *stream_ids[3:]}
        buried = await store.pool.fetch('SELECT "offset", reason FROM platform.dead_letter')
        assert [row["offset"] for row in buried] == [2]
        assert set(store.served.next.values()) == {5}


async def test_a_decision_that_the_database_refuses_stops_the_line(migrated: str) -> None:
    topics, tenant, stream_id = Topics("a."), new_id(), new_id()
    decided = log.Log(topics.decisions.name)
    made = StreamCreated("Lobby", "lobby", "p", "i", "sk_a", b"h")
    decided.append(3, made, log.meta(tenant, stream_id, version=1))
    decided.append(3, StreamRenamed("a\0b"), log.meta(tenant, stream_id, version=2))
    async with opened(streams.PROJECTION, migrated, topics) as store:
        with pytest.raises(Halted, match="refuses a decision"):
            await feed(store, *decided.records.values())
        row = await streams.stream_by_id(store.pool, tenant, stream_id)
        assert row is not None
        assert row.title == "Lobby"
