"""A first build that is active and empty, so that a worker follows the log from its beginning.

A worker that starts on empty tables and a full log fills its first build as `fw rebuild` does; that is another measurement.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from projections.worker import open_store, projection_of
from streams.settings import read_settings
from streams.topics import Topics


async def make_empty_build(projection: str, env: Mapping[str, str]) -> None:
    """Of this projection, by settings as these: it is made against a log that is empty."""
    topics = Topics(f"empty{secrets.token_hex(3)}.")
    admin = AIOKafkaAdminClient(bootstrap_servers=env["FW_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        await admin.create_topics([NewTopic(t.name, t.partitions, 1) for t in topics.all()])
        settings = read_settings({**env, "FW_TOPIC_PREFIX": topics.prefix})
        store = await open_store(projection_of(projection), settings)
        await store.close()
        await admin.delete_topics([t.name for t in topics.all()])
    finally:
        await admin.close()
