"""What the simulator's Kafka promises, held against a real one: each test runs on both, through the same `Cluster`.

Where the two differ, the real one is right.
"""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, OffsetOutOfRangeError, ProducerFenced

from tests.contract.broker_worlds import World, read_to, transaction, values

SESSION_MS = 6000


def test_records_come_back_as_they_were_sent_in_order_with_offsets(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(2), 1)
        producer, consumer = world.cluster.idempotent_producer("p"), world.cluster.reader("r")
        await producer.start()
        await consumer.start()
        first = await producer.send_and_wait(tp.topic, b"a", key=b"k", partition=1, timestamp_ms=1000, headers=[("h", b"1")])
        assert (first.topic, first.partition, first.offset) == (tp.topic, 1, 0)
        sent = [await producer.send(tp.topic, b"%d" % n, partition=1) for n in range(5)]
        assert [(await f).offset for f in sent] == [1, 2, 3, 4, 5]
        batch = producer.create_batch()
        for value in (b"x", None):
            batch.append(timestamp=None, key=b"k", value=value, headers=[])
        assert batch.record_count() == 2
        assert (await (await producer.send_batch(batch, tp.topic, partition=1))).offset == 6

        consumer.assign([tp])
        consumer.seek(tp, 0)
        records = await read_to(consumer, tp, 8)
        assert [r.offset for r in records] == list(range(8))
        assert [r.value for r in records] == [b"a", b"0", b"1", b"2", b"3", b"4", b"x", None]
        assert (records[0].key, records[0].timestamp, tuple(records[0].headers)) == (b"k", 1000, (("h", b"1"),))
        assert (records[0].topic, records[0].partition) == (tp.topic, 1)
        consumer.seek(tp, 3)
        assert (await consumer.getmany(timeout_ms=180_000, max_records=2))[tp][0].offset == 3
        assert await consumer.position(tp) == 5
        other = TopicPartition(tp.topic, 0)
        assert await consumer.beginning_offsets([tp, other]) == {tp: 0, other: 0}
        assert await consumer.end_offsets([tp, other]) == {tp: 8, other: 0}
        await producer.stop()
        await consumer.stop()

    world.run(scenario())


def test_a_reader_may_be_stopped_as_soon_as_it_has_started(world: World) -> None:
    """What went wrong in between is what its user hears of, and no cancellation that nobody asked for."""

    async def scenario() -> None:
        consumer = world.cluster.reader("r")
        await consumer.start()
        try:
            raise LookupError
        finally:
            await consumer.stop()

    with pytest.raises(LookupError):
        world.run(scenario())


def test_a_reader_that_waits_is_woken_by_the_next_record_and_a_paused_one_is_not(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        producer, consumer = world.cluster.idempotent_producer("p"), world.cluster.reader("r")
        await producer.start()
        await consumer.start()
        consumer.assign([tp])
        consumer.seek(tp, 0)
        waiting = asyncio.ensure_future(consumer.getmany(timeout_ms=60_000))
        await asyncio.sleep(0.05)
        await producer.send_and_wait(tp.topic, b"a", partition=0)
        assert [r.value for r in (await waiting)[tp]] == [b"a"]
        consumer.pause(tp)
        await producer.send_and_wait(tp.topic, b"b", partition=0)
        assert await consumer.getmany(timeout_ms=300) == {}
        consumer.resume(tp)
        assert [r.value for r in (await consumer.getmany(timeout_ms=180_000))[tp]] == [b"b"]
        assert await consumer.getmany(timeout_ms=0) == {}
        await producer.stop()
        await consumer.stop()

    world.run(scenario())


def test_a_transaction_is_seen_when_it_is_committed_and_its_markers_take_offsets(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        producer = world.cluster.transactional_producer(f"{world.prefix}-a")
        await producer.start()
        await transaction(producer, tp, b"1", b"2")
        await transaction(producer, tp, b"gone", commits=False)
        await transaction(producer, tp, b"3")
        assert await values(world.cluster, tp, committed=False) == [b"1", b"2", b"gone", b"3"]
        assert await values(world.cluster, tp) == [b"1", b"2", b"3"]
        consumer = world.cluster.reader("r")
        await consumer.start()
        consumer.assign([tp])
        while (await consumer.end_offsets([tp]))[tp] < 7:  # the last marker is written a little after the commit's answer
            await asyncio.sleep(0.02)
        consumer.seek(tp, 0)
        assert [r.offset for r in await read_to(consumer, tp, 7)] == [0, 1, 5]
        assert await consumer.position(tp) == 7
        consumer.seek(tp, 2)  # among markers and what was aborted
        assert [r.offset for r in await read_to(consumer, tp, 7)] == [5]
        await consumer.stop()
        await producer.stop()

    world.run(scenario())


def test_a_log_that_ends_in_nothing_but_aborted_records_has_an_end_for_committed_readers(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        producer = world.cluster.transactional_producer(f"{world.prefix}-a")
        await producer.start()
        for n in range(3):
            await transaction(producer, tp, b"%d" % n, commits=False)
        reader, uncommitted = world.cluster.reader("r"), world.cluster.reader("u", committed=False)
        await reader.start()
        await uncommitted.start()
        while (await uncommitted.end_offsets([tp]))[tp] < 6:
            await asyncio.sleep(0.02)
        reader.assign([tp])
        reader.seek(tp, 0)
        assert await read_to(reader, tp, 6) == []
        for client in (reader, uncommitted, producer):
            await client.stop()

    world.run(scenario())


def test_an_open_transaction_holds_back_what_came_after_it(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        opened, plain = world.cluster.transactional_producer(f"{world.prefix}-a"), world.cluster.idempotent_producer("p")
        reader, uncommitted = world.cluster.reader("r"), world.cluster.reader("u", committed=False)
        for client in (opened, plain, reader, uncommitted):
            await client.start()
        await plain.send_and_wait(tp.topic, b"before", partition=0)
        await opened.begin_transaction()
        await opened.send_and_wait(tp.topic, b"open", partition=0)
        await plain.send_and_wait(tp.topic, b"after", partition=0)
        assert (await reader.end_offsets([tp]))[tp] == 1
        assert (await uncommitted.end_offsets([tp]))[tp] == 3
        reader.assign([tp])
        reader.seek(tp, 0)
        assert [r.value for r in (await reader.getmany(timeout_ms=180_000))[tp]] == [b"before"]
        assert await reader.getmany(timeout_ms=300) == {}
        assert await reader.position(tp) == 1
        await opened.commit_transaction()
        assert [r.value for r in await read_to(reader, tp, 4)] == [b"open", b"after"]
        for client in (opened, plain, reader, uncommitted):
            await client.stop()

    world.run(scenario())


async def given_up(producer: AIOKafkaProducer) -> None:
    """Stopping a fenced producer may hang."""
    await asyncio.wait([asyncio.ensure_future(producer.stop())], timeout=2)


def test_the_next_producer_of_an_id_ends_the_open_transaction_and_fences_the_one_before(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        old, new = (world.cluster.transactional_producer(f"{world.prefix}-a") for _ in range(2))
        await old.start()
        await transaction(old, tp, b"1")
        await old.begin_transaction()
        await old.send_and_wait(tp.topic, b"never", partition=0)
        await new.start()
        # what it left open is ended, and stable, when the new one is there
        assert await values(world.cluster, tp) == [b"1"]
        with pytest.raises(ProducerFenced):
            await old.commit_transaction()
        await transaction(new, tp, b"2")
        assert await values(world.cluster, tp, committed=False) == [b"1", b"never", b"2"]
        await eventually(world, tp, [b"1", b"2"])
        await new.stop()
        await given_up(old)

    world.run(scenario())


@pytest.mark.parametrize("moment", ["begins", "goes on", "adds positions"])
def test_a_late_zombie_is_fenced_wherever_it_goes_on(world: World, moment: str) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(2), 0)
        old, new = (world.cluster.transactional_producer(f"{world.prefix}-a") for _ in range(2))
        await old.start()
        await transaction(old, tp, b"1")
        await old.begin_transaction()
        if moment != "begins":
            await old.send_and_wait(tp.topic, b"never", partition=0)
        await new.start()
        if moment == "adds positions":
            late = old.send_offsets_to_transaction({TopicPartition(tp.topic, 1): 1}, f"{world.prefix}-g")
        else:
            late = old.send_and_wait(tp.topic, b"never", partition=0)
        with pytest.raises(ProducerFenced):
            await late
        await transaction(new, tp, b"2")
        await eventually(world, tp, [b"1", b"2"])
        await new.stop()
        await given_up(old)

    world.run(scenario())


async def eventually(world: World, tp: TopicPartition, expected: list[bytes]) -> None:
    """The marker follows the commit's answer in a moment."""
    while (found := await values(world.cluster, tp)) != expected:
        assert found == expected[: len(found)]
        await asyncio.sleep(0.02)


def test_positions_in_a_transaction_count_when_it_is_committed(world: World) -> None:
    async def scenario() -> None:
        tp, source = TopicPartition(await world.create_topic(), 0), TopicPartition(await world.create_topic(), 0)
        group = f"{world.prefix}-g"
        producer, member = world.cluster.transactional_producer(f"{world.prefix}-a"), world.cluster.member(group, SESSION_MS)
        await producer.start()
        await member.start()
        assert await member.committed(source) is None
        await producer.begin_transaction()
        await producer.send_and_wait(tp.topic, b"1", partition=0)
        await producer.send_offsets_to_transaction({source: 7}, group)
        assert await member.committed(source) is None
        await producer.commit_transaction()
        while await member.committed(source) is None:
            await asyncio.sleep(0.02)
        assert await member.committed(source) == 7
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({source: 9}, group)
        await producer.abort_transaction()
        # The next transaction begins when the one before has ended everywhere.
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({source: 8}, group)
        assert await member.committed(source) == 7
        successor = world.cluster.transactional_producer(f"{world.prefix}-a")
        await successor.start()
        assert await member.committed(source) == 7
        await member.stop()
        await successor.stop()
        await given_up(producer)

    world.run(scenario())


def test_what_does_not_fit_the_state_of_a_transaction_is_refused(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        producer, plain = world.cluster.transactional_producer(f"{world.prefix}-a"), world.cluster.idempotent_producer("p")
        await producer.start()
        await plain.start()
        with pytest.raises(IllegalOperation):
            await plain.begin_transaction()
        with pytest.raises(IllegalOperation):
            await producer.send(tp.topic, b"x", partition=0)
        with pytest.raises(IllegalOperation):
            await producer.send_offsets_to_transaction({tp: 1}, "g")
        with pytest.raises(AssertionError):
            await producer.commit_transaction()
        await producer.begin_transaction()
        with pytest.raises(AssertionError):
            await producer.begin_transaction()
        await producer.commit_transaction()  # of nothing
        await transaction(producer, tp, b"1")
        await eventually(world, tp, [b"1"])
        await producer.stop()
        await plain.stop()

    world.run(scenario())


def test_a_position_that_is_gone_is_said_and_not_jumped_over(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        producer, consumer = world.cluster.idempotent_producer("p"), world.cluster.reader("r")
        await producer.start()
        await consumer.start()
        for n in range(5):
            await producer.send_and_wait(tp.topic, b"%d" % n, partition=0)
        await world.delete_records({tp: 3})
        assert await consumer.beginning_offsets([tp]) == {tp: 3}
        assert await consumer.end_offsets([tp]) == {tp: 5}
        consumer.assign([tp])
        for lost in (2, 6):
            consumer.seek(tp, lost)
            with pytest.raises(OffsetOutOfRangeError) as caught:
                await consumer.getmany(timeout_ms=180_000)
            assert caught.value.args[0] == {tp: lost}
        consumer.seek(tp, 3)
        assert [r.value for r in await read_to(consumer, tp, 5)] == [b"3", b"4"]
        await world.delete_records({tp: -1})
        assert await consumer.beginning_offsets([tp]) == {tp: 5}
        await producer.stop()
        await consumer.stop()

    world.run(scenario())


def test_offsets_are_found_by_time(world: World) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        producer, consumer = world.cluster.idempotent_producer("p"), world.cluster.reader("r")
        await producer.start()
        await consumer.start()
        for at in (1000, 2000, 3000):
            await producer.send_and_wait(tp.topic, b"x", partition=0, timestamp_ms=at)
        found = {at: (await consumer.offsets_for_times({tp: at}))[tp] for at in (1, 1000, 1001, 3000, 3001)}
        told = {at: None if of is None else (of.offset, of.timestamp) for at, of in found.items()}
        assert told == {1: (0, 1000), 1000: (0, 1000), 1001: (1, 2000), 3000: (2, 3000), 3001: None}
        await producer.stop()
        await consumer.stop()

    world.run(scenario())


def test_the_topics_and_their_leaders_are_told(world: World) -> None:
    async def scenario() -> None:
        topic = await world.create_topic(3)
        leaders = (await world.cluster.leaders())[topic]
        assert len(leaders) == 3
        assert all(leader >= 0 for leader in leaders)

    world.run(scenario())


@pytest.mark.parametrize("is_transactional", [False, True])
def test_a_batch_whose_answer_was_lost_is_sent_again_and_stands_on_the_log_once(world: World, is_transactional: bool) -> None:
    async def scenario() -> None:
        tp = TopicPartition(await world.create_topic(), 0)
        name = f"{world.prefix}-a"
        producer = world.cluster.transactional_producer(name) if is_transactional else world.cluster.idempotent_producer(name)
        await producer.start()
        if is_transactional:
            await producer.begin_transaction()
        await producer.send_and_wait(tp.topic, b"1", partition=0)
        lost = world.lose_next_answer(producer)
        told = await producer.send_and_wait(tp.topic, b"2", partition=0)
        assert lost()
        assert told.offset == 1
        await producer.send_and_wait(tp.topic, b"3", partition=0)
        if is_transactional:
            await producer.commit_transaction()
        await eventually(world, tp, [b"1", b"2", b"3"])
        await producer.stop()

    world.run(scenario())
