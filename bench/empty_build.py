"""Topics of a fresh prefix, and a first build that is active and empty, so that a worker follows the log from its beginning.

A worker that starts on empty tables and a full log fills its first build as `fw rebuild` does; that is another measurement.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from projections.worker import open_store, projection_of
from streams.settings import read_settings
from streams.topics import Topics


@contextlib.asynccontextmanager
async def topics_of(kafka: str) -> AsyncIterator[Topics]:
    """Topics of a fresh prefix, until the block ends."""
    topics = Topics(f"bench{secrets.token_hex(3)}.")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(t.name, t.partitions, 1) for t in topics.all()])
        yield topics
        await admin.delete_topics([t.name for t in topics.all()])
    finally:
        await admin.close()


async def make_empty_build(projection: str, env: Mapping[str, str]) -> None:
    """Of this projection, by settings as these: it is made against a log that is empty."""
    async with topics_of(env["FW_KAFKA_BOOTSTRAP"]) as topics:
        settings = read_settings({**env, "FW_TOPIC_PREFIX": topics.prefix})
        store = await open_store(projection_of(projection), settings)
        await store.close()
