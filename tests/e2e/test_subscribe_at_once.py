"""A stream can be subscribed to as soon as the mutation that made it was answered."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from infra.demo import operations
from infra.demo.api import Api, subscribe
from infra.demo.run import tenant
from infra.demo.stack import Stack
from tests.platform import Platform


async def test_the_subscription_waits_for_the_projection_that_it_reads(platform: Platform) -> None:
    stack = msgspec.convert(platform.up, Stack)
    token = await tenant(stack)
    async with Api(stack.graphql, token) as api:
        for _ in range(20):
            entry = {"title": "Lobby", "clientMutationId": str(uuid4())}
            made = (await api.ask(operations.StreamMade, operations.CREATE_STREAM, input=entry)).create_stream
            assert made.stream is not None
            variables = {"streamId": made.stream.id}
            watched = subscribe(stack.graphql_ws, token, operations.Watched, operations.WATCH, variables)
            assert (await anext(watched)).stream_events.typename == "StreamSnapshot"
            await watched.aclose()
