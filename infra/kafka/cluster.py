"""Reads a cluster's topics, and applies the difference to what the code says.

Invariant: applying twice changes nothing the second time; a topic that another created in the meantime is fine when it is
as wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from infra.kafka.diff import Change, ConfigChanged, Found, Replication, TopicCreated, diff
from streams.errors import Transient
from streams.topics import Topics

TOPIC_OVERRIDE: Final = 1
"""`config_source` of a value that was set on the topic itself."""
EMBEDDED: Final = Replication(1)


async def plan(bootstrap: str, topics: Topics, replication: Replication = EMBEDDED) -> Sequence[Change]:
    """What `apply` would do. Raises Refused; Transient when the cluster does not answer."""
    async with admin(bootstrap) as client:
        return diff(topics.all(), await found(client, topics), replication)


async def apply(bootstrap: str, topics: Topics, replication: Replication = EMBEDDED) -> Sequence[Change]:
    """Makes the cluster's topics as the code says; returns what was done. Raises Refused (nothing was touched) or Transient."""
    async with admin(bootstrap) as client:
        there = await found(client, topics)
        changes = diff(topics.all(), there, replication)
        await create(client, [c for c in changes if isinstance(c, TopicCreated)])
        await alter(client, [c for c in changes if isinstance(c, ConfigChanged)], there)
        await settled(client, topics, replication)
        return changes


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="fw-topics", request_timeout_ms=30_000)
    try:
        await client.start()
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise Transient(f"Kafka at {bootstrap} does not do it: {error!r}") from error
    finally:
        await client.close()


async def found(client: AIOKafkaAdminClient, topics: Topics) -> Mapping[str, Found]:
    """Those of our topics that exist."""
    names = {t.name for t in topics.all()}
    # All topics are listed: asking for one by name would create it where the broker allows that.
    listed = {t["topic"]: t["partitions"] for t in await client.describe_topics() if t["topic"] in names}
    if not listed:
        return {}
    answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in listed])
    configs, overrides = dict[str, dict[str, str]](), dict[str, dict[str, str]]()
    for answer in answers:
        for code, message, _, name, entries in answer.resources:
            if code:
                raise for_code(code)(message)
            configs[name] = {entry[0]: entry[1] for entry in entries}
            overrides[name] = {entry[0]: entry[1] for entry in entries if entry[3] == TOPIC_OVERRIDE}
    return {
        name: Found(len(partitions), min(len(p["replicas"]) for p in partitions), configs[name], overrides[name])
        for name, partitions in listed.items()
    }


async def create(client: AIOKafkaAdminClient, changes: Sequence[TopicCreated]) -> None:
    if not changes:
        return
    answer = await client.create_topics(
        [NewTopic(c.topic, c.partitions, c.replication_factor, topic_configs=dict(c.config)) for c in changes]
    )
    for topic, code, message in answer.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise for_code(code)(f"{topic}: {message}")


async def alter(client: AIOKafkaAdminClient, changes: Sequence[ConfigChanged], there: Mapping[str, Found]) -> None:
    if not changes:
        return
    # This request replaces all that was set on a topic, so what the operator set goes with it.
    wanted = {c.topic: {**there[c.topic].overrides, **{k: after for k, (_, after) in c.values.items()}} for c in changes}
    for answer in await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, t, v) for t, v in wanted.items()]):
        for code, message, _, name in answer.resources:
            if code:
                raise for_code(code)(f"{name}: {message}")


async def settled(client: AIOKafkaAdminClient, topics: Topics, replication: Replication) -> None:
    """Waits until every partition has a leader and nothing is left to do: brokers show what the controller accepted later."""
    async with asyncio.timeout(30):
        while True:
            led = {t["topic"]: all(p["leader"] >= 0 for p in t["partitions"]) for t in await client.describe_topics()}
            if all(led.get(t.name) for t in topics.all()) and not diff(topics.all(), await found(client, topics), replication):
                return
            await asyncio.sleep(0.02)
