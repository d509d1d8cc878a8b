"""A fact at which the ingress fails every time is found among thousands and refused; all others arrive, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest

from infra.processes.ingress import SERVICE
from streams.codec import decode
from streams.ingress.client import POISON, Outgoing, Publisher
from streams.ingress.ingress_pb2 import Batch, BatchAck
from streams.ingress.limits import ACCEPTED
from streams.ingress.line import OWN_TROUBLE
from tests.ingress import fact

TENANT, ONE, OTHER = uuid4(), uuid4(), uuid4()


class FailingIngress:
    """Takes batches and keeps their items, until one of them makes it fail; `is_ill`: it has trouble of its own."""

    def __init__(self) -> None:
        self.poison: set[bytes] = set()
        self.taken: list[bytes] = []
        self.calls = 0
        self.is_ill = False

    async def publish(self, _requests: object, context: grpc.aio.ServicerContext[Batch, BatchAck]) -> None:
        self.calls += 1
        await context.send_initial_metadata((ACCEPTED,))
        while isinstance(batch := await context.read(), Batch):
            if self.is_ill:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Kafka does not answer", ((OWN_TROUBLE, "1"),))
            values = [item.value for item in batch.items]
            if self.poison & set(values):
                raise RuntimeError("a bug that this item meets")
            self.taken += values
            await context.write(BatchAck(number=batch.number))


@pytest.fixture
async def served() -> AsyncIterator[tuple[FailingIngress, int]]:
    ingress, server = FailingIngress(), grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(ingress.publish, Batch.FromString, BatchAck.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Publish": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield ingress, port
    await server.stop(None)


def numbers(values: list[bytes], stream: UUID) -> list[int]:
    """Of one stream's facts, in the order of their first arrival."""
    found: dict[int, None] = {}
    for value in values:
        event, meta = decode(value)
        if meta.aggregate_id == stream:
            found[getattr(event, "buffer_ms")] = None  # noqa: B009
    return list(found)


async def test_poison_is_found_by_bisection(served: tuple[FailingIngress, int]) -> None:
    ingress, port = served
    facts = [fact(TENANT, ONE if n % 3 else OTHER, n) for n in range(3000)]
    ingress.poison = {facts[0], facts[1234]}
    async with Publisher(f"127.0.0.1:{port}", lambda: "any") as publisher:
        receipts = [await publisher.publish([Outgoing(v) for v in facts[at : at + 500]]) for at in range(0, 3000, 500)]
        async with asyncio.timeout(180):
            refused = [await receipt for receipt in receipts]
        assert [[(r.index, r.code) for r in of_batch] for of_batch in refused] == [
            [(0, POISON)], [], [(234, POISON)], [], [], []
        ]  # fmt: skip
        assert "a bug that this item meets" in refused[2][0].reason
        after = await publisher.publish([Outgoing(fact(TENANT, ONE, 3000))])
        async with asyncio.timeout(180):
            assert await after == ()
    for stream, rest in ((ONE, (1, 2)), (OTHER, (0,))):
        expected = [n for n in range(3000) if n % 3 in rest and n not in (0, 1234)]
        assert numbers(ingress.taken, stream) == expected + [3000] * (stream == ONE)


async def test_an_ingress_with_trouble_of_its_own_loses_nothing(served: tuple[FailingIngress, int]) -> None:
    ingress, port = served
    ingress.is_ill = True
    async with Publisher(f"127.0.0.1:{port}", lambda: "any") as publisher:
        receipt = await publisher.publish([Outgoing(fact(TENANT, ONE, n)) for n in range(10)])
        async with asyncio.timeout(180):
            while ingress.calls < 12:
                await asyncio.sleep(0.01)
        ingress.is_ill = False
        async with asyncio.timeout(180):
            assert await receipt == ()
    assert numbers(ingress.taken, ONE) == list(range(10))


async def test_an_ingress_that_fails_at_everything_loses_nothing(served: tuple[FailingIngress, int]) -> None:
    ingress, port = served
    facts = [fact(TENANT, (ONE, OTHER)[n % 2], n) for n in range(8)]
    ingress.poison = set(facts)
    async with Publisher(f"127.0.0.1:{port}", lambda: "any") as publisher:
        receipt = await publisher.publish([Outgoing(value) for value in facts])
        async with asyncio.timeout(180):
            while ingress.calls < 40:
                await asyncio.sleep(0.01)
        assert not receipt.done()
        ingress.poison = set()
        async with asyncio.timeout(180):
            assert await receipt == ()
    assert sorted(numbers(ingress.taken, ONE) + numbers(ingress.taken, OTHER)) == list(range(8))
