"""The gRPC ingress: authenticates nodes, appends what they saw to the log, and tells them what they may admit.

Invariant: a batch is acknowledged after Kafka has acknowledged every accepted item of it, and batches of a connection in the
order in which they came. A refused item stops nothing: it is answered with a reason. What one connection may have waiting is
bounded; beyond that nothing is read from it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counted
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar
from uuid import UUID

import grpc
import grpc.aio
from prometheus_client import Counter, Gauge, Histogram

from streams.errors import Invalid, Rejected, Transient
from streams.ingress.admission import REVOKED, Admission, Nodes
from streams.ingress.append import Appender, Log
from streams.ingress.credentials import NodeCredential
from streams.ingress.ingress_pb2 import (
    Batch,
    BatchAck,
    KeyEnvelopes,
    KeysRegistered,
    LeaseGranted,
    LeaseRequest,
    PolicyRequest,
    PolicyUpdate,
    Refusal,
)
from streams.ingress.ingress_pb2_grpc import IngressServicer
from streams.ingress.item import Gate, NotAccepted, Routed
from streams.ingress.keys import KeyDesk, envelopes, registered
from streams.ingress.lease import WATCHED, LeaseAnswer, LeaseOutcome
from streams.ingress.limits import ACCEPTED, MAX_BATCH_ITEMS, MAX_BATCHES_IN_FLIGHT, MAX_BYTES_IN_FLIGHT, MAX_BYTES_WAITING
from streams.ingress.line import OWN_TROUBLE
from streams.ingress.policy_news import Known, PolicyNews
from streams.ingress.policy_updates import updates
from streams.ingress.room import Room
from streams.privacy.envelope import DayKeys
from streams.telemetry import bind
from streams.telemetry import log as logger_of
from streams.topics import Topics

EVENTS = Counter("fw_ingress_events_total", "Items on the log.", ["event_type"])
REFUSED = Counter("fw_ingress_refused_total", "Items that were refused.", ["code"])
BATCHES = Counter("fw_ingress_batches_total", "Batches acknowledged.")
UNAUTHENTICATED = Counter("fw_ingress_unauthenticated_total", "Calls without a credential that was issued here.")
CONNECTIONS = Gauge("fw_ingress_connections", "Open streams of nodes.", ["kind"])
ACK_SECONDS = Histogram("fw_ingress_ack_seconds", "From reading a batch to its acknowledgement.")

logger = logger_of(__name__)
Request = TypeVar("Request")
Response = TypeVar("Response")


class LeaseDesk(Protocol):
    """Who grants the right to publish a stream (`streams.ingress.leases`)."""

    async def ask(self, node: NodeCredential, stream_id: UUID, ingest_id: UUID) -> LeaseAnswer: ...
    def happened(self, values: Sequence[bytes]) -> None: ...


class PolicySource(Protocol):
    """Where the policy comes from (`streams.ingress.policy_feed`)."""

    def news(self, node: NodeCredential, known: Known | None) -> AsyncGenerator[PolicyNews, None]:
        """What the node may know: all of it or what changed since `known`, then changes; empty news as a sign of life."""


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """A batch that waits for Kafka."""

    number: int
    size_bytes: int
    taken_at: float
    done: asyncio.Future[None]
    events: Counted[str]
    refusals: Sequence[Refusal]
    watched: Sequence[bytes]  # of what leases follow


class Ingress(IngressServicer):
    """The calls. `stopping` ends those that last: batches that were read are still answered."""

    def __init__(
        self,
        appender: Appender,
        policy: PolicySource,
        topics: Topics,
        secret_key: bytes,
        keys: KeyDesk | None = None,
        leases: LeaseDesk | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        self._appender, self._policy, self._topics, self._secret_key = appender, policy, topics, secret_key
        self._keys, self._leases, self._admission = keys, leases, Admission(secret_key, nodes)
        self._room = Room(MAX_BYTES_WAITING)
        self.stopping = asyncio.Event()

    async def Publish(  # type: ignore[override]  # noqa: N802  # the generated stub knows only iterators
        self, _requests: object, context: grpc.aio.ServicerContext[Batch, BatchAck]
    ) -> None:
        credential = await self._authenticated(context)
        try:
            gate = Gate(self._topics, credential)
            connection = _Publishing(gate, self._appender.log(), self._room, context, self._leases)
        except Transient as error:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
        await context.send_initial_metadata((ACCEPTED,))  # the node's sign that it is connected
        with bind(node_id=credential.node_id), CONNECTIONS.labels("publish").track_inprogress():
            logger.info("node publishes")
            try:
                await self._admission.while_admitted(credential, connection.run(self.stopping))
            except Rejected as error:
                await _refuse(context, error)
            except Transient as error:
                await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
            except ValueError as error:
                await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    async def Policy(  # type: ignore[override]  # noqa: N802
        self, request: PolicyRequest, context: grpc.aio.ServicerContext[PolicyRequest, PolicyUpdate]
    ) -> None:
        credential = await self._authenticated(context)
        known = Known(request.snapshot, tuple(request.offsets)) if request.snapshot else None
        await context.send_initial_metadata((ACCEPTED,))
        with bind(node_id=credential.node_id), CONNECTIONS.labels("policy").track_inprogress():
            logger.info("node watches the policy")
            try:
                telling = _until(self.stopping, self._tell(credential, known, context))
                await self._admission.while_admitted(credential, telling)
            except Rejected as error:
                await _refuse(context, error)
            except Transient as error:
                await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))

    async def RegisterKeys(  # noqa: N802
        self, request: KeyEnvelopes, context: grpc.aio.ServicerContext[KeyEnvelopes, KeysRegistered]
    ) -> KeysRegistered:
        credential = await self._authenticated(context)
        if self._keys is None:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "this ingress has no key store")
        with bind(node_id=credential.node_id):
            try:
                return registered(await self._keys.take(envelopes(request), credential.serves))
            except Transient as error:
                await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
            except Invalid as error:
                await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def IngestLease(  # noqa: N802
        self, request: LeaseRequest, context: grpc.aio.ServicerContext[LeaseRequest, LeaseGranted]
    ) -> LeaseGranted:
        credential = await self._authenticated(context)
        if self._leases is None:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "this ingress grants no leases")
        with bind(node_id=credential.node_id):
            try:
                ids = UUID(bytes=request.stream_id), UUID(bytes=request.ingest_id)
                answer = await self._leases.ask(credential, *ids)
            except Transient as error:
                await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
            except Rejected as error:
                await _abort(context, grpc.StatusCode.NOT_FOUND, error.message)
            except ValueError:
                await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "an id has 16 bytes")
        return LeaseGranted(granted=answer.outcome is LeaseOutcome.GRANTED, held_by=answer.held_by or "")

    async def _tell(
        self, credential: NodeCredential, known: Known | None, context: grpc.aio.ServicerContext[PolicyRequest, PolicyUpdate]
    ) -> None:
        told: tuple[DayKeys, ...] = ()
        async with aclosing(self._policy.news(credential, known)) as all_news:
            async for news in all_news:
                days = self._keys.published if self._keys else ()
                for update in updates(news, self._secret_key, () if days == told else days):
                    await context.write(update)
                told = days

    async def _authenticated(self, context: grpc.aio.ServicerContext[Request, Response]) -> NodeCredential:
        try:
            return await self._admission.admitted(context)
        except Rejected as error:
            UNAUTHENTICATED.inc()
            await _refuse(context, error)
        except Transient as error:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))


class _Publishing:
    """One connection: batches are read and appended by one task, answered in order by another."""

    def __init__(
        self,
        gate: Gate,
        log: Log,
        whole: Room,
        context: grpc.aio.ServicerContext[Batch, BatchAck],
        leases: LeaseDesk | None = None,
    ) -> None:
        self._gate, self._log, self._context, self._leases = gate, log, context, leases
        self._taken: asyncio.Queue[_Taken | None] = asyncio.Queue(MAX_BATCHES_IN_FLIGHT)
        self._room = Room(MAX_BYTES_IN_FLIGHT, whole)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until the node or the server ends it. Raises Transient (Kafka) and ValueError (beyond the limits)."""
        reader = asyncio.create_task(self._read(stopping))
        try:
            await self._answer()
            await reader
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            self._room.free(self._room.used_bytes)

    async def _read(self, stopping: asyncio.Event) -> None:
        try:
            await _until(stopping, self._take_all())
        finally:
            await self._taken.put(None)  # what was read is answered before the connection ends

    async def _take_all(self) -> None:
        while isinstance(batch := await self._context.read(), Batch):
            if len(batch.items) > MAX_BATCH_ITEMS:
                raise ValueError(f"a batch has at most {MAX_BATCH_ITEMS} items, not {len(batch.items)}")
            taken = self._take(batch)
            self._room.take(taken.size_bytes)
            await self._taken.put(taken)
            await self._room.available()

    def _take(self, batch: Batch) -> _Taken:
        accepted: list[Routed] = []
        refusals: list[Refusal] = []
        events: Counted[str] = Counted()
        pass_item, size_bytes = self._gate.pass_item, 0
        for index, item in enumerate(batch.items):
            value = item.value
            size_bytes += len(value)
            verdict = pass_item(value, item.traceparent)
            if isinstance(verdict, NotAccepted):
                refusals.append(Refusal(index=index, code=verdict.code, reason=verdict.reason))
                REFUSED.labels(Refusal.Code.Name(verdict.code)).inc()
            else:
                accepted.append(verdict)
        events.update(item.event_type for item in accepted)
        watched = [i.value for i in accepted if i.event_type in WATCHED] if not WATCHED.isdisjoint(events) else ()
        return _Taken(batch.number, size_bytes, time.monotonic(), self._log.append(accepted), events, refusals, watched)

    async def _answer(self) -> None:
        while (taken := await self._taken.get()) is not None:
            await taken.done
            if taken.watched and self._leases is not None:
                self._leases.happened(taken.watched)
            ACK_SECONDS.observe(time.monotonic() - taken.taken_at)
            BATCHES.inc()
            for event_type, count in taken.events.items():
                EVENTS.labels(event_type).inc(count)
            await self._context.write(BatchAck(number=taken.number, refusals=taken.refusals))
            self._room.free(taken.size_bytes)


async def _until(stopping: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Runs work until it ends or the server stops, whichever is first."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _refuse(context: grpc.aio.ServicerContext[Request, Response], rejected: Rejected) -> NoReturn:
    """Ends a call whose node may not speak (any more)."""
    is_revoked = rejected.code == REVOKED
    await _abort(context, grpc.StatusCode.PERMISSION_DENIED if is_revoked else grpc.StatusCode.UNAUTHENTICATED, rejected.message)


async def _abort(context: grpc.aio.ServicerContext[Request, Response], code: grpc.StatusCode, sentence: str) -> NoReturn:
    is_own = code is grpc.StatusCode.UNAVAILABLE
    await context.abort(code, sentence, ((OWN_TROUBLE, "1"),) if is_own else ())
    raise AssertionError("abort raises")
