"""How a node asks for the right to publish a stream.

Invariant: an answer within the deadline, whatever happens: no answer of the platform is UNREACHABLE.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import grpc.aio

from streams.ingress.ingress_pb2 import LeaseGranted, LeaseRequest
from streams.ingress.ingress_pb2_grpc import IngressStub
from streams.ingress.lease import LEASE_SECONDS, LeaseAnswer, LeaseOutcome
from streams.ingress.line import Credential, authorization, open_channel, sentence
from streams.ingress.transport import NodeCertificate
from streams.telemetry import log

logger = log(__name__)


class LeaseClient:
    """One channel, opened at the first question, kept until `close` or until the node shows another certificate."""

    def __init__(self, address: str, credential: Credential) -> None:
        self._address, self._credential = address, credential
        self._channel: grpc.aio.Channel | None = None
        self._shown: str | NodeCertificate = ""
        self._closing: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        stream_id: UUID,
        node_id: str,  # noqa: ARG002  # the credential says it; a platform that is not asked over gRPC would need it
        ingest_id: UUID,
        deadline_seconds: float = LEASE_SECONDS,
    ) -> LeaseAnswer:
        """Never raises, and never takes longer than the deadline: then the answer is UNREACHABLE."""
        request = LeaseRequest(stream_id=stream_id.bytes, ingest_id=ingest_id.bytes)
        try:
            async with asyncio.timeout(deadline_seconds):
                call = IngressStub(self._opened()).IngestLease(
                    request, metadata=authorization(self._credential), timeout=deadline_seconds
                )
                answer: LeaseGranted = await call
        except grpc.aio.AioRpcError as error:
            logger.warning("no lease could be asked for", stream_id=str(stream_id), reason=sentence(error))
            return LeaseAnswer(LeaseOutcome.UNREACHABLE)
        except (TimeoutError, OSError, ValueError) as error:  # OSError, ValueError: the credential cannot be read
            logger.warning("no lease could be asked for", stream_id=str(stream_id), reason=repr(error))
            return LeaseAnswer(LeaseOutcome.UNREACHABLE)
        return LeaseAnswer(LeaseOutcome.GRANTED if answer.granted else LeaseOutcome.DENIED, answer.held_by or None)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None
        for closing in tuple(self._closing):
            await closing

    def _opened(self) -> grpc.aio.Channel:
        if self._channel is not None and self._shown != self._credential():
            # Questions that are under way are still answered.
            closing = asyncio.create_task(self._channel.close(LEASE_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._channel = None
        if self._channel is None:
            self._shown = self._credential()
            self._channel = open_channel(self._address, self._credential)
        return self._channel
