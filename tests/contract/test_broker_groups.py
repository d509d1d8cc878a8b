"""What the simulator's consumer groups promise, held against a real Kafka (see test_broker_contract.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import InvalidSessionTimeoutError

from tests.contract.broker_worlds import World

SESSION_MS = 6000


class Listening(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self) -> None:
        self.said: list[tuple[str, list[int]]] = []

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.said.append(("revoked", sorted(tp.partition for tp in revoked)))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.said.append(("assigned", sorted(tp.partition for tp in assigned)))


async def owns(listening: Listening, partitions: int) -> list[int]:
    while not listening.said or listening.said[-1][0] != "assigned" or len(listening.said[-1][1]) != partitions:
        await asyncio.sleep(0.02)
    return listening.said[-1][1]


async def polled(member: AIOKafkaConsumer) -> None:
    while True:
        await member.getmany(timeout_ms=200)


def test_a_group_shares_partitions_out_and_hands_them_over(world: World) -> None:
    async def scenario() -> None:
        topic, group = await world.create_topic(4), f"{world.prefix}-g"
        members = [world.cluster.member(group, SESSION_MS) for _ in range(2)]
        listeners = [Listening(), Listening()]
        polls = []
        for n in range(2):
            await members[n].start()
            members[n].subscribe([topic], listener=listeners[n])
            polls.append(asyncio.ensure_future(polled(members[n])))
            if n == 0:
                assert await owns(listeners[0], 4) == [0, 1, 2, 3]
        shares = [await owns(listening, 2) for listening in listeners]
        assert sorted(shares[0] + shares[1]) == [0, 1, 2, 3]
        assert {tuple(share) for share in shares} == {(0, 2), (1, 3)}
        # each time it is asked for what it has before it is given something else
        for listening in listeners:
            assert [what for what, _ in listening.said] == ["revoked", "assigned"] * (len(listening.said) // 2)
            held: list[int] = []
            for what, partitions in listening.said:
                if what == "revoked":
                    assert partitions == held
                held = partitions
        polls[0].cancel()
        await members[0].stop()
        assert await owns(listeners[1], 4) == [0, 1, 2, 3]
        polls[1].cancel()
        await members[1].stop()

    world.run(scenario())


def test_a_group_goes_on_where_it_committed(world: World) -> None:
    async def scenario() -> None:
        topic, group = await world.create_topic(), f"{world.prefix}-g"
        tp = TopicPartition(topic, 0)
        producer = world.cluster.idempotent_producer("p")
        await producer.start()
        for n in range(5):
            await producer.send_and_wait(topic, b"%d" % n, partition=0)
        seen: list[bytes] = []
        for until in (3, 5):
            member = world.cluster.member(group, SESSION_MS)
            await member.start()
            member.subscribe([topic])
            while len(seen) < until:
                seen += [r.value for r in (await member.getmany(timeout_ms=200, max_records=1)).get(tp, [])]
            await member.commit({tp: until})
            assert await member.committed(tp) == until
            await member.stop()
        assert seen == [b"0", b"1", b"2", b"3", b"4"]
        await producer.stop()

    world.run(scenario())


def test_a_session_that_is_too_short_is_refused(world: World) -> None:
    async def scenario() -> None:
        topic = await world.create_topic()
        member = world.cluster.member(f"{world.prefix}-g", 500)
        await member.start()
        member.subscribe([topic])
        with pytest.raises(InvalidSessionTimeoutError):
            await polled(member)
        await member.stop()

    world.run(scenario())


def test_a_listener_that_fails_does_not_end_the_membership(world: World) -> None:
    class Failing(Listening):
        async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
            await super().on_partitions_assigned(assigned)
            raise RuntimeError("of the listener")

    async def scenario() -> None:
        topic, listening = await world.create_topic(), Failing()
        tp = TopicPartition(topic, 0)
        member, producer = world.cluster.member(f"{world.prefix}-g", SESSION_MS), world.cluster.idempotent_producer("p")
        await member.start()
        await producer.start()
        member.subscribe([topic], listener=listening)
        assert await owns(listening, 1) == [0]
        await producer.send_and_wait(topic, b"a", partition=0)
        while not (got := await member.getmany(timeout_ms=200)):
            pass
        assert [record.value for record in got[tp]] == [b"a"]
        await member.stop()
        await producer.stop()

    world.run(scenario())
