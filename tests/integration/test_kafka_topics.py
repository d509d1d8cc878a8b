"""Topics as data, on a real broker."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.embedded.stack import Stack
from infra.kafka import ConfigChanged, Refused, Replication, TopicCreated, apply, plan
from infra.kafka.cluster import admin, found
from streams.errors import Transient
from streams.topics import Topics


@pytest.fixture
async def fresh(stack: Stack) -> AsyncIterator[Topics]:
    """A prefix under which nothing exists yet; what a test makes there is deleted."""
    topics = Topics(f"t{secrets.token_hex(4)}.")
    yield topics
    async with admin(stack.kafka) as client:
        await client.delete_topics([name for name in await client.list_topics() if name.startswith(topics.prefix)])


async def test_creates_every_topic_once_and_has_nothing_to_do_afterwards(stack: Stack, fresh: Topics) -> None:
    planned = await plan(stack.kafka, fresh)
    assert [c.topic for c in planned] == [t.name for t in fresh.all()]
    assert all(isinstance(c, TopicCreated) for c in planned)

    assert await apply(stack.kafka, fresh) == planned
    assert await apply(stack.kafka, fresh) == []
    async with admin(stack.kafka) as client:
        there = await found(client, fresh)
    decisions = there[fresh.decisions.name]
    assert decisions.partitions == fresh.decisions.partitions
    assert decisions.config["retention.ms"] == "-1"
    assert decisions.config["min.insync.replicas"] == "1"
    assert there[fresh.commands.name].config["max.message.bytes"] == str(fresh.commands.max_message_bytes)


async def test_planning_creates_nothing(stack: Stack, fresh: Topics) -> None:
    assert await plan(stack.kafka, fresh)
    async with admin(stack.kafka) as client:
        assert await found(client, fresh) == {}


async def test_brings_back_what_was_changed_and_keeps_what_the_operator_set(stack: Stack, fresh: Topics) -> None:
    await apply(stack.kafka, fresh)
    name = fresh.facts.name
    async with admin(stack.kafka) as client:
        before = (await found(client, fresh))[name].overrides
        changed = {**before, "retention.ms": "1000", "segment.ms": "3600000"}
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, changed)])
        while (await found(client, fresh))[name].config["retention.ms"] != "1000":
            await asyncio.sleep(0.02)

    changes = await apply(stack.kafka, fresh)
    assert changes == [ConfigChanged(name, {"retention.ms": ("1000", str(fresh.facts.retention_ms))})]
    assert str(changes[0]) == f"~ {name} retention.ms: 1000 -> {fresh.facts.retention_ms}"
    async with admin(stack.kafka) as client:
        there = (await found(client, fresh))[name]
    assert there.config["segment.ms"] == "3600000"
    assert there.config["retention.ms"] == str(fresh.facts.retention_ms)


async def test_refuses_another_partition_count_before_it_touches_anything(stack: Stack, fresh: Topics) -> None:
    async with admin(stack.kafka) as client:
        await client.create_topics([NewTopic(fresh.facts.name, 3, 1)])
        async with asyncio.timeout(180):
            while not await found(client, fresh):  # a busy broker tells of a new topic late
                await asyncio.sleep(0.05)
    with pytest.raises(Refused, match=f"{fresh.facts.name} has 3 partitions and should have 12: the count is never changed"):
        await apply(stack.kafka, fresh)
    async with admin(stack.kafka) as client:
        assert list(await found(client, fresh)) == [fresh.facts.name]


async def test_refuses_another_replication_factor(stack: Stack, fresh: Topics) -> None:
    await apply(stack.kafka, fresh)
    with pytest.raises(Refused, match="has replication factor 1 and should have 3"):
        await plan(stack.kafka, fresh, Replication(3))


async def test_two_that_apply_at_once_both_succeed(stack: Stack, fresh: Topics) -> None:
    await asyncio.gather(apply(stack.kafka, fresh), apply(stack.kafka, fresh))
    assert not await plan(stack.kafka, fresh)


async def test_says_so_when_nobody_listens(free_port: int) -> None:
    with pytest.raises(Transient, match=f"127.0.0.1:{free_port}"):
        await plan(f"127.0.0.1:{free_port}", Topics())


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


async def fw(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Runs `fw` as a user would: exit code, stdout, stderr."""
    import os
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infra.cli.topics",
        *arguments,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 180)
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_prints_the_difference(stack: Stack, fresh: Topics) -> None:
    env = {"FW_KAFKA_BOOTSTRAP": stack.kafka, "FW_TOPIC_PREFIX": fresh.prefix}
    code, out, err = await fw("plan", **env)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"+ {fresh.commands.name} partitions=12 replication.factor=1 cleanup.policy=delete")

    code, out, _ = await fw("apply", "--json", **env)
    assert code == 0
    assert [c["topic"] for c in json.loads(out)["created"]] == [t.name for t in fresh.all()]

    code, out, _ = await fw("apply", **env)
    assert (code, out) == (0, f"nothing to change: {len(fresh.all())} topics are as they should be\n")

    code, out, err = await fw("plan", "--replication-factor", "3", **env)
    assert (code, out) == (1, "")
    assert "has replication factor 1 and should have 3" in err
    assert "Traceback" not in err
