"""One scenario, from a trigger to a subscriber's screen:

1. a stream of its own is created through the GraphQL API
2. a subscription to it is open before anything happens; where it is cut off it goes on behind the last event
3. the recording is replayed into the edge agent, as the media server would have sent it
4. what the API then answers must be what the recording says; projections are given a moment to get there
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

from infra.demo import operations, recording
from infra.demo.api import PATIENCE_SECONDS, RETRY_SECONDS, Api, Away, Refused, subscribe
from infra.demo.operations import AboutStream, Event, Made, Rejections, StreamMade, TenantMade, Watched
from infra.demo.recording import Figures, File, Viewing
from infra.demo.stack import Stack

SETTLE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the recording says, what the platform says, and what a subscriber was told."""

    scenario: int
    stream_id: str
    expected: Figures
    found: Figures
    refusals: tuple[str, ...]
    events: list[Event]

    @property
    def equal(self) -> bool:
        return self.found == self.expected and not self.missed

    @property
    def missed(self) -> tuple[str, ...]:
        """Kinds of events of which the subscriber was told fewer than there were."""
        told = [e.typename for e in self.events if not e.synthesized]
        happened = {
            "IngestStarted": self.expected.ingests,
            "ViewerLeft": len(self.expected.viewings),
            "PushEnded": len(self.expected.push_bytes),
            "RecordingEnded": len(self.expected.files),
        }
        return tuple(kind for kind, times in happened.items() if told.count(kind) < times)


async def succeeded(send: Callable[[], Awaitable[Made]], typename: str) -> Made:
    """The mutation's success. While nobody has decided it, it is sent again, with its clientMutationId. Raises Refused."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        made = await send()
        if made.typename != "PendingResult" or time.monotonic() > end:
            break
        await asyncio.sleep(RETRY_SECONDS)
    if made.typename != typename:
        raise Refused(f"{made.typename}: {made.code} {made.message}")
    return made


async def tenant(stack: Stack) -> str:
    """API token of a new tenant."""
    entry = {"name": "Demo", "clientMutationId": str(uuid4())}
    async with Api(stack.graphql, stack.operator_token) as operator:

        async def send() -> Made:
            return (await operator.ask(TenantMade, operations.CREATE_TENANT, input=entry)).create_tenant

        return (await succeeded(send, "CreateTenantSuccess")).api_token


async def stream(api: Api, title: str) -> Made:
    """A new stream with its key."""
    entry = {"title": title, "clientMutationId": str(uuid4())}

    async def send() -> Made:
        return (await api.ask(StreamMade, operations.CREATE_STREAM, input=entry)).create_stream

    return await succeeded(send, "CreateStreamSuccess")


async def scenario(number: int, stack: Stack, token: str, speed: float, show: Callable[[float, Event], None]) -> Outcome:
    triggers = recording.read(recording.path_of(number))
    expected = recording.figures(triggers)
    async with Api(stack.graphql, token) as api, Api(stack.graphql, stack.operator_token) as operator:
        made = await stream(api, recording.SCENARIOS[number][1].capitalize())
        assert made.stream is not None
        stream_id = made.stream.id
        await api.ask(AboutStream, operations.READ_OWN_WRITE, id=stream_id, after=made.position)
        async with watching(stack, token, stream_id, show) as told:
            await begun(told)
            started = datetime.now(UTC)
            await play_recording(number, stack.edge, made.stream_key, speed)
            found, refusals = await settled(api, operator, stream_id, started, expected)
            outcome = Outcome(number, stream_id, expected, found, refusals, told.events)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    while outcome.missed:
                        await told.next()
            # Again, now that everything was told: a figure that was right must also stay right.
            found, refusals = await figures(api, operator, stream_id, started)
    return replace(outcome, found=found, refusals=refusals)


@dataclass(frozen=True, slots=True)
class Told:
    """What a subscriber was told so far."""

    events: list[Event]
    arrived: asyncio.Event

    async def next(self) -> None:
        """Returns when there is more than there was."""
        self.arrived.clear()
        await self.arrived.wait()


async def begun(told: Told) -> None:
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while not told.events:
                await told.next()
    except TimeoutError:
        raise Refused(f"the subscription said nothing for {SETTLE_SECONDS:.0f} s") from None


@contextlib.asynccontextmanager
async def watching(stack: Stack, token: str, stream_id: str, show: Callable[[float, Event], None]) -> AsyncIterator[Told]:
    """A subscription in the background. Cut off, it goes on behind the last event; refused, the block fails."""
    told, began = Told([], asyncio.Event()), time.monotonic()

    async def watch() -> None:
        while True:
            after = told.events[-1].cursor if told.events else None
            variables = {"streamId": stream_id, "after": after}
            with contextlib.suppress(Away):
                async for answer in subscribe(stack.graphql_ws, token, Watched, operations.WATCH, variables):
                    told.events.append(answer.stream_events)
                    told.arrived.set()
                    show(time.monotonic() - began, answer.stream_events)
            await asyncio.sleep(RETRY_SECONDS)

    problems = list[Refused]()
    try:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(watch())
            yield told
            watcher.cancel()
    except* Refused as group:
        problems += [e for e in group.exceptions if isinstance(e, Refused)]
    if problems:
        raise problems[0]


async def play_recording(number: int, edge: str, key: str, speed: float) -> None:
    """`fw replay-recording`: another process, as the media server is one."""
    path = str(recording.path_of(number))
    command = [sys.executable, "-m", "infra.cli", "replay-recording", path]
    options = ["--edge", edge, "--stream-key", key, "--speed", str(speed), "--json"]
    process = await asyncio.create_subprocess_exec(*command, *options, stdout=asyncio.subprocess.DEVNULL)
    try:
        if await process.wait():
            raise Refused(f"the recording could not be replayed: fw replay-recording ended with {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def settled(
    api: Api, operator: Api, stream_id: str, started: datetime, expected: Figures
) -> tuple[Figures, tuple[str, ...]]:
    """Figures of the API and the reasons of refusals, as soon as they are the expected ones, or when it has had enough time."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found, refusals = await figures(api, operator, stream_id, started)
        if found == expected or time.monotonic() > deadline:
            return found, refusals
        await asyncio.sleep(0.2)


async def figures(api: Api, operator: Api, stream_id: str, started: datetime) -> tuple[Figures, tuple[str, ...]]:
    """What the API answers now. A viewing that was only concluded (its end was never reported) is not compared."""
    watched = (await api.ask(AboutStream, operations.WHO_WATCHED, id=stream_id)).stream
    published = (await api.ask(AboutStream, operations.WHO_PUBLISHED, id=stream_id)).stream
    went_on = (await api.ask(AboutStream, operations.WHAT_WENT_ON, id=stream_id)).stream
    if watched is None or published is None or went_on is None:
        raise Refused(f"the stream {stream_id} is not there")
    own = [r.reason for r in published.rejections.nodes if r.kind == "INGEST"]
    others = await operator.ask(Rejections, operations.WHO_WAS_REFUSED)
    unknown = [r.reason for r in others.rejections.nodes if r.kind == "INGEST" and instant(r.at) >= started]
    viewings = [n for n in watched.sessions.nodes if n.left_at is not None and not n.synthesized]
    found = Figures(
        published.ingests.total_count,
        own.count("DUPLICATE_INGEST"),
        len(unknown),
        tuple(sorted(Viewing(n.seconds or 0, n.up_bytes or 0, n.down_bytes or 0) for n in viewings)),
        tuple(sorted(n.bytes or 0 for n in went_on.pushes.nodes if n.ended_at is not None)),
        tuple(sorted(File(n.bytes or 0, n.seconds or 0) for n in went_on.recordings.nodes)),
    )
    return found, tuple(sorted(own + unknown))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
