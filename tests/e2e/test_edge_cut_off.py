"""An edge that is cut off for a long stretch and killed twice meanwhile: every fact arrives once, in the order of its stream."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from infra.embedded.stack import Stack
from infra.processes.ingress import Running, running
from streams.codec import encode
from streams.generated import BufferChanged, IngestEnded, IngestStarted, StreamCreated, StreamTotals, ViewerJoined, ViewerLeft
from streams.ids import derive
from streams.kafka import idempotent_producer
from streams.topics import Topics, partition_of
from tests.cut import Cut
from tests.edge_node import KEY, TENANT
from tests.edge_process import EdgeProcess, facts_on_log
from tests.ingress import ingress_settings, meta
from tests.policy_log import publishing

STREAMS, ROUNDS, KILLED_AT = 4, 60, (20, 40)
NAMES = [f"room{n}" for n in range(STREAMS)]


def key(n: int) -> str:
    return KEY.replace("abcd2345", f"abcd234{n}")


def stream_id(n: int) -> UUID:
    return derive(TENANT, "cut off", n)


@pytest.fixture
async def ingress(stack: Stack, topics: Topics) -> AsyncIterator[Running]:
    """An ingress that knows some streams."""
    async with idempotent_producer(stack.kafka, "test") as producer:
        for n, name in enumerate(NAMES):
            prefix, hashed = key(n).rpartition("_")[0], sha256(key(n).encode()).digest()
            created = StreamCreated(name, name, f"pb{name}", name, prefix, hashed)
            value = encode(created, meta(TENANT, stream_id(n), version=1))
            await producer.send_and_wait(topics.decisions.name, value, TENANT.bytes, partition_of(TENANT))
    async with publishing(stack.kafka, topics), running(ingress_settings(stack.kafka, topics)) as ingress:
        yield ingress


class MediaServer:
    """Sends one stream's triggers one after another; while nobody listens it says the same again, as with its five attempts."""

    def __init__(self, edge: EdgeProcess, n: int) -> None:
        self._edge, self._n, self._sent = edge, n, 0
        self.expected: list[tuple[str, int | str]] = []  # record, and what tells it apart

    async def post(self, trigger: str, body: str, pid: int) -> None:
        self._sent += 1
        async with asyncio.timeout(180):
            while True:
                try:
                    status, _ = await self._edge.post(trigger, body, uuid=f"{self._n}-{self._sent}", pid=pid)
                    assert status == 200, status
                    return
                except (OSError, EOFError):  # killed, or starting: whether it was handled nobody knows
                    await asyncio.sleep(0.02)

    async def round(self, number: int) -> None:
        name, pid, offered = f"live+{NAMES[self._n]}", 1000 * (self._n + 1) + number, key(self._n)
        url, session = f"rtmp://h/live/{offered}", f"{self._n:02x}{number:062x}"
        await self.post("PUSH_REWRITE", f"{url}\n203.0.113.7\n{offered}", pid)
        await self.post("STREAM_PUSH", f"{name}\n203.0.113.7\nRTMP\n{url}", pid)
        await self.post("STREAM_BUFFER", f'{name}\nFULL\n{{"buffer":{number}}}', pid)
        await self.post("USER_NEW", f"{name}\n203.0.113.8\ntok\nHLS\n\n{session}\nfalse", 1)
        end = f"tok\n{name}\nHLS\n203.0.113.8\n{number}\n1\n2\n\n1\n1\n1\n{session}"
        await self.post("USER_END", end, 1)
        await self.post("OUTPUT_END", f"{name}\n\nRTMP\n1\n{number}\n1\n2\n0\n0\n0\nCLEAN_EOF\nend\n", pid)
        await self.post("STREAM_END", f"{name}\n{number}\n2\n1\n1\n0\n9", 1)
        self.expected += [
            ("IngestStarted", ""),
            ("BufferChanged", number),
            ("ViewerJoined", session),
            ("ViewerLeft", number),
            ("IngestEnded", number),
            ("StreamTotals", number),
        ]


def told_apart(event: object) -> int | str | None:
    match event:
        case IngestStarted():
            return ""
        case BufferChanged():
            return event.buffer_ms
        case ViewerJoined():
            return event.session_id
        case ViewerLeft() | IngestEnded():
            return event.seconds
        case StreamTotals():
            return event.down_bytes
    return None


async def test_cut_off_and_killed_twice(stack: Stack, topics: Topics, ingress: Running, tmp_path: Path) -> None:
    async with Cut(ingress.port) as line, EdgeProcess(tmp_path / "edge", f"127.0.0.1:{line.port}") as edge:
        await edge.ready()
        servers = [MediaServer(edge, n) for n in range(STREAMS)]
        await asyncio.gather(*(server.round(0) for server in servers))
        await edge.drained()
        before = len(await facts_on_log(stack.kafka, topics))

        line.is_down = True
        await line.cut()
        for number in range(1, ROUNDS):
            rounds = [asyncio.create_task(server.round(number)) for server in servers]
            if number in KILLED_AT:
                await edge.kill()  # in the middle of the round
                await edge.start()
            await asyncio.gather(*rounds)
        waiting = (await edge.gauges())["fw_edge_journal_rows"]
        assert waiting >= STREAMS * (ROUNDS - 1) * 6
        assert len(await facts_on_log(stack.kafka, topics)) == before
        detail = (await edge.status())[1]
        assert b"facts wait for the platform" in detail

        line.is_down = False
        draining = asyncio.create_task(edge.drained())
        await line.cut()  # once more, while it catches up
        await draining
    first: dict[UUID, list[tuple[str, int | str]]] = defaultdict(list)
    seen: set[UUID] = set()
    for event, about in await facts_on_log(stack.kafka, topics):
        if about.event_id in seen:
            continue  # a batch that was sent again; readers see it once by its id
        seen.add(about.event_id)
        if (tells := told_apart(event)) is not None:
            first[about.aggregate_id].append((type(event).__name__, tells))
    for server, name in zip(servers, range(STREAMS), strict=True):
        assert first[stream_id(name)] == server.expected
