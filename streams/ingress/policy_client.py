"""What an edge node learns its policy through: the whole of it, or what changed since it was here last; then changes, for ever.

Invariant: what a node knows that has taken every news up to one with `known` is what the log says as of there. A snapshot comes
in parts and counts once it is complete: a connection that breaks before is begun again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc.aio

from streams.errors import Invalid
from streams.ingress.ingress_pb2 import PolicyRequest, PolicyUpdate
from streams.ingress.ingress_pb2_grpc import IngressStub
from streams.ingress.limits import KEEPALIVE_SECONDS
from streams.ingress.line import Credential, Line, authorization, open_channel, pauses, sentence
from streams.ingress.policy_news import Known, PolicyNews
from streams.ingress.policy_updates import news_of

if TYPE_CHECKING:
    from streams.ingress.ingress_pb2_grpc import IngressAsyncStub

SILENCE_SECONDS = 3 * KEEPALIVE_SECONDS


def nothing() -> Known | None:
    return None


async def watch_policy(
    address: str, credential: Credential, line: Line, known: Callable[[], Known | None] = nothing
) -> AsyncGenerator[PolicyNews, None]:
    """News of the policy, across reconnections. Ends only by being closed; `line` says how the connection does.

    `known` says, at each connection, up to where the caller knows the policy: only what changed since is told.
    """
    pause = pauses()
    while True:
        try:
            line.stale.clear()
            async with (
                open_channel(address, credential) as channel,
                aclosing(_connection(channel, credential, line, known())) as connection,
            ):
                async for news in connection:
                    if not line.is_up:
                        line.up()
                        pause = pauses()
                    yield news
            if line.is_up and line.stale.is_set():  # we wanted it so
                continue
            line.down("the ingress ended the connection")
        except grpc.aio.AioRpcError as error:
            line.down(sentence(error))
        except TimeoutError:
            line.down(f"the ingress said nothing for {SILENCE_SECONDS:.0f} seconds")
        except (Invalid, OSError, ValueError) as error:  # OSError, ValueError: the credential cannot be read
            line.down(str(error))
        await asyncio.sleep(next(pause))


async def _connection(
    channel: grpc.aio.Channel, credential: Credential, line: Line, known: Known | None
) -> AsyncGenerator[PolicyNews, None]:
    stub: IngressAsyncStub = IngressStub(channel)
    request = PolicyRequest(snapshot=known.snapshot, offsets=known.offsets) if known else PolicyRequest()
    call = stub.Policy(request, metadata=authorization(credential))
    try:
        while True:
            update = await _read(call, line)
            if not isinstance(update, PolicyUpdate):
                return
            yield news_of(update)
    finally:
        call.cancel()


async def _read(call: grpc.aio.UnaryStreamCall[PolicyRequest, PolicyUpdate], line: Line) -> object:
    """The next message, or something else where none comes or another connection is wanted. Raises TimeoutError."""
    reading, unwanted = asyncio.ensure_future(call.read()), asyncio.ensure_future(line.stale.wait())
    try:
        done, _ = await asyncio.wait((reading, unwanted), timeout=SILENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError
        return reading.result() if reading in done else None
    finally:
        reading.cancel()
        unwanted.cancel()
