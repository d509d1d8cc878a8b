"""Fixtures of the contract suites."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka import AIOKafkaProducer

from infra.embedded.stack import Stack
from streams.kafka import idempotent_producer, stopped
from tests.contract.broker_worlds import KafkaWorld, SimWorld, World


@pytest.fixture(params=["sim-1", "sim-2", "kafka"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    kind = str(request.param)
    if kind == "kafka":
        yield KafkaWorld(request.getfixturevalue("stack").kafka)
        gc.collect()  # aiokafka leaves futures with errors behind that nobody wanted: let them complain here, to nobody
    else:
        yield SimWorld(int(kind[-1]))


@pytest.fixture
async def producer(stack: Stack) -> AsyncIterator[AIOKafkaProducer]:
    producer = idempotent_producer(stack.kafka, "test")
    await producer.start()
    yield producer
    await stopped(producer)
