"""What cannot be done to a real broker on time: lost answers, time-outs, sessions that run out, a broker that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka.errors import KafkaConnectionError, OutOfOrderSequenceNumber, ProducerFenced
from aiokafka.structs import TopicPartition

from tests.sim.cluster import SimCluster
from tests.sim.loop import SimLoop
from tests.sim.partition_log import Message, Sender

TP = TopicPartition("t", 0)


@pytest.fixture(params=range(5))
def sim(request: pytest.FixtureRequest) -> Iterator[SimCluster]:
    cluster = SimCluster(SimLoop(int(request.param)))
    cluster.broker.create_topic("t", 4)
    yield cluster
    cluster.loop.end()
    assert cluster.loop.unhandled == []


def values(sim: SimCluster, committed: bool = True) -> list[bytes | None]:
    return [entry.value for entry in sim.broker.log("t", 0).read(committed)]


def test_whatever_the_network_loses_stands_on_the_log_once_and_in_order(sim: SimCluster) -> None:
    faults = sim.network.faults

    async def sends() -> None:
        producer = sim.idempotent_producer("p")
        await producer.start()
        faults.lose_request = faults.lose_answer = faults.delay = 0.3
        futures = [await producer.send("t", b"%d" % n, partition=0) for n in range(20)]
        await asyncio.sleep(0.1)
        futures += [await producer.send("t", b"%d" % n, partition=0) for n in range(20, 40)]
        assert [(await future).offset for future in futures] == list(range(40))

    sim.loop.run(sends())
    assert values(sim) == [b"%d" % n for n in range(40)]


def test_a_log_takes_a_sequence_once_and_no_gap_in_it(sim: SimCluster) -> None:
    log = sim.broker.log("t", 0)
    assert log.append([Message(None, b"a"), Message(None, b"b")], 0, Sender(7, 0, 0)) == 0
    assert log.append([Message(None, b"a"), Message(None, b"b")], 0, Sender(7, 0, 0)) == 0
    with pytest.raises(OutOfOrderSequenceNumber):
        log.append([Message(None, b"d")], 0, Sender(7, 0, 3))
    assert log.append([Message(None, b"c")], 0, Sender(7, 0, 2)) == 2
    assert values(sim) == [b"a", b"b", b"c"]


def test_a_transaction_that_stays_open_is_ended_by_the_broker_and_its_producer_is_fenced(sim: SimCluster) -> None:
    async def stays() -> None:
        producer = sim.transactional_producer("a")
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait("t", b"open", partition=0)
        await asyncio.sleep(29)
        assert sim.broker.log("t", 0).stable_end == 0
        await asyncio.sleep(2)
        assert sim.broker.log("t", 0).stable_end == sim.broker.log("t", 0).end == 2
        with pytest.raises(ProducerFenced):
            await producer.commit_transaction()

    sim.loop.run(stays())
    assert values(sim) == []
    assert values(sim, committed=False) == [b"open"]


def test_a_commit_whose_answer_is_lost_is_a_commit(sim: SimCluster) -> None:
    process = sim.loop.process("p")

    async def commits() -> None:
        producer = sim.transactional_producer("a")
        await producer.start()
        for n in range(3):
            sim.network.trap(process, "EndTxn", "after", "lose")
            await producer.begin_transaction()
            await producer.send_and_wait("t", b"%d" % n, partition=0)
            await producer.commit_transaction()

    task = process.start(commits())
    sim.loop.run_until(task.done, 60)
    task.result()
    sim.loop.run_for(1)
    assert values(sim) == [b"0", b"1", b"2"]
    assert sim.network.traps == []


def test_a_frozen_member_loses_its_partitions_and_hears_of_it_when_it_wakes(sim: SimCluster) -> None:
    said: dict[str, list[int]] = {}

    async def belongs(name: str) -> None:
        class Listening:
            async def on_partitions_revoked(self, revoked: object) -> None:
                said[name] = []

            async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
                said[name] = sorted(tp.partition for tp in assigned)

        member = sim.member("g", 3000)
        await member.start()
        member.subscribe(["t"], listener=Listening())  # type: ignore[arg-type]
        await asyncio.sleep(1e9)

    processes = {name: sim.loop.process(name) for name in "abc"}
    for name, process in processes.items():
        process.start(belongs(name))
    sim.loop.run_for(10)
    assert sorted(p for of in said.values() for p in of) == [0, 1, 2, 3]
    assert all(said.values())
    processes["a"].freeze()
    processes["b"].kill()
    before = said["a"]
    sim.loop.run_for(20)
    assert said["c"] == [0, 1, 2, 3]
    assert said["a"] == before  # it knows nothing
    processes["a"].wake()
    sim.loop.run_for(20)
    assert sorted(said["a"] + said["c"]) == [0, 1, 2, 3]
    assert len(said["a"]) == len(said["c"]) == 2


def test_what_is_on_the_log_outlives_a_broker_that_goes_away(sim: SimCluster) -> None:
    async def sends() -> None:
        producer = sim.idempotent_producer("p")
        await producer.start()
        await producer.send_and_wait("t", b"1", partition=0)
        sim.network.restart(5)
        with pytest.raises(KafkaConnectionError):
            await sim.reader("r").start()
        began = sim.loop.time()
        await producer.send_and_wait("t", b"2", partition=0)
        assert sim.loop.time() - began > 4.9

    sim.loop.run(sends())
    assert values(sim) == [b"1", b"2"]
