"""The command worker as a process, a client of its topics, and an independent model of what it must have written.

The model is written from the rules as people say them, with plain dictionaries; it shares no code with `commands`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from streams import codec, ids
from streams.generated import (
    Command,
    CommandHandled,
    CreateStream,
    DeleteStream,
    Event,
    Meta,
    RegisterTenant,
    RenameStream,
    RotateStreamKey,
)
from streams.kafka import idempotent_producer, reader
from streams.topics import PARTITIONS, Topic, Topics, partition_of

Sent = tuple[Command, Meta]
IDLE_SECONDS = 120
"""Nobody answers any more when nothing has come for so long: a worker that has to begin again does so in seconds, also on a
machine that is ten times as slow."""


@dataclass
class Worker:
    """`python -m commands`, with its log in a file."""

    process: subprocess.Popen[bytes]
    metrics_port: int
    log: Path

    @property
    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=30) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def wait_ready(self, seconds: float = 180) -> Worker:
        end = time.monotonic() + seconds
        while not self.is_ready:
            assert self.process.poll() is None, f"worker left: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < end, f"worker is not ready: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(180)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def workers(kafka: str, topics: Topics, directory: Path) -> Iterator[WorkerStarter]:
    """Starts workers, and kills at the end what still runs."""
    starter = WorkerStarter(kafka, topics, directory)
    try:
        yield starter
    finally:
        for worker in starter.started:
            if worker.process.poll() is None:
                worker.kill()
            print(f"{worker.log.name}:\n{worker.log.read_text()}")  # pytest shows it where a test fails


@dataclass
class WorkerStarter:
    kafka: str
    topics: Topics
    directory: Path
    started: list[Worker] = field(default_factory=list)

    def start(self) -> Worker:
        port, log = free_port(), self.directory / f"worker-{len(self.started)}.log"
        env = {
            **os.environ,
            "FW_KAFKA_BOOTSTRAP": self.kafka,
            "FW_TOPIC_PREFIX": self.topics.prefix,
            "FW_POSTGRES_URL": "postgresql://unused/unused",
            "FW_CLICKHOUSE_URL": "http://unused/unused",
            "FW_SECRET_KEY": "5e" * 32,
            "FW_OPERATOR_TOKEN": "unused",
            "FW_METRICS_PORT": str(port),
        }
        with log.open("wb") as stderr:
            process = subprocess.Popen([sys.executable, "-m", "commands"], env=env, stderr=stderr)
        self.started.append(Worker(process, port, log))
        return self.started[-1]


class Client:
    """Sends commands and remembers them per partition, in the order of the topic."""

    def __init__(self, kafka: str, topics: Topics, producer: AIOKafkaProducer) -> None:
        self.kafka, self.topics, self.producer = kafka, topics, producer

    async def send(self, command: Command, meta: Meta, traceparent: str | None = None) -> None:
        partition = partition_of(meta.tenant_id)
        headers = codec.headers(command, meta, traceparent)
        await self.raw(partition, codec.encode(command, meta), meta.tenant_id.bytes, headers)

    async def raw(self, partition: int, value: bytes, key: bytes = b"", headers: Sequence[codec.Header] = ()) -> None:
        topic = self.topics.commands.name
        await self.producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))

    async def send_all(self, commands: Sequence[Sent]) -> None:
        futures = [
            await self.producer.send(
                self.topics.commands.name,
                codec.encode(command, meta),
                key=meta.tenant_id.bytes,
                partition=partition_of(meta.tenant_id),
            )
            for command, meta in commands
        ]
        for future in futures:
            await future

    async def read(self, topic: Topic, *, committed: bool = True) -> list[list[ConsumerRecord]]:
        """Everything on a topic now, by partition."""
        out: list[list[ConsumerRecord]] = [[] for _ in range(PARTITIONS)]
        tps = [TopicPartition(topic.name, p) for p in range(PARTITIONS)]
        source = reader(self.kafka, "test", committed=committed)
        await source.start()
        try:
            ends = await source.end_offsets(tps)
            source.assign(tps)
            for tp in tps:
                source.seek(tp, 0)
            while any([await source.position(tp) < ends[tp] for tp in tps]):
                for tp, records in (await source.getmany(timeout_ms=200)).items():
                    out[tp.partition] += records
        finally:
            await source.stop()
        return out

    async def decisions(self, partition: int) -> list[tuple[Event, Meta]]:
        return [codec.decode(r.value) for r in (await self.read(self.topics.decisions))[partition]]

    async def answers(self, commands: int) -> int:
        """Waits until as many outcomes are on the log as commands were sent, or none more comes; how many there are."""
        tps = [TopicPartition(self.topics.decisions.name, p) for p in range(PARTITIONS)]
        source = reader(self.kafka, "test")
        await source.start()
        handled, last = 0, time.monotonic()
        try:
            source.assign(tps)
            for tp in tps:
                source.seek(tp, 0)
            while handled < commands and time.monotonic() - last < IDLE_SECONDS:
                for records in (await source.getmany(timeout_ms=200)).values():
                    handled += sum(codec.name_of(r.value) == "CommandHandled" for r in records)
                    last = time.monotonic()
        finally:
            await source.stop()
        return handled


@asynccontextmanager
async def client(kafka: str, topics: Topics) -> AsyncIterator[Client]:
    producer = idempotent_producer(kafka, "test")
    await producer.start()
    try:
        yield Client(kafka, topics, producer)
    finally:
        with contextlib.suppress(Exception):
            await producer.stop()


def meta(tenant: UUID, aggregate: UUID | None = None, command: UUID | None = None, at: datetime | None = None) -> Meta:
    command = command or ids.new_id()
    at = at or datetime.now(UTC)
    return Meta(command, tenant, aggregate or tenant, 0, command, command, at.replace(microsecond=0), "token:test")


def tenants(n: int, seed: int = 0) -> list[UUID]:
    """Tenants in as many partitions as there are, in turn."""
    found: dict[int, list[UUID]] = {p: [] for p in range(PARTITIONS)}
    number = 0
    while any(len(of) < -(-n // PARTITIONS) for of in found.values()):
        tenant = ids.derive(ids.NAMESPACE, "tenant of test", seed, number)
        found[partition_of(tenant)].append(tenant)
        number += 1
    return [found[i % PARTITIONS][i // PARTITIONS] for i in range(n)]


def traffic(n: int, seed: int, of: Sequence[UUID]) -> list[Sent]:
    """Commands as they come: registrations first, then anything, sensible or not; some of them twice."""
    rng = random.Random(seed)
    began = datetime.now(UTC)
    out: list[Sent] = [(RegisterTenant(f"tenant {t}", "fwt_x", b"t" * 32), meta(t, at=began)) for t in of]
    while len(out) < n:
        tenant = rng.choice(of)
        if rng.random() < 0.05:
            command, m = rng.choice(out)
            out.append((command, m))
            continue
        m = meta(tenant, ids.derive(tenant, "stream", rng.randrange(20)), at=began + timedelta(seconds=len(out) // 100))
        out.append((wish(rng, m.occurred_at), m))
    return out


def wish(rng: random.Random, now: datetime) -> Command:
    key = bytes([rng.randrange(256)]) * 32
    match rng.randrange(10):
        case 0 | 1 | 2:
            return CreateStream(f"title {rng.randrange(9)}", f"slug-{rng.randrange(12)}", "play", "internal", "sk_a", key)
        case 3 | 4 | 5:
            return RenameStream(rng.choice(["A", "B", "C", ""]))
        case 6 | 7:
            return RotateStreamKey("sk_b", key, rng.choice([0, 60, 86400, -5]), now)
        case _:
            return DeleteStream()


@dataclass
class Model:
    """What one partition's log must hold: lines of (what, aggregate, version or code)."""

    tenants: dict[UUID, dict[UUID, dict[str, object]]] = field(default_factory=dict)
    versions: dict[UUID, int] = field(default_factory=dict)
    answered: dict[UUID, tuple[str | None, int]] = field(default_factory=dict)
    lines: list[tuple[str, UUID, object]] = field(default_factory=list)

    def say(self, what: str, aggregate: UUID) -> None:
        self.versions[aggregate] = self.versions.get(aggregate, 0) + 1
        self.lines.append((what, aggregate, self.versions[aggregate]))

    def take(self, command: Command, m: Meta) -> None:
        if m.event_id not in self.answered:
            before = len(self.lines)
            code = self.rule(command, m)
            self.answered[m.event_id] = code, len(self.lines) - before
        code, events = self.answered[m.event_id]
        self.lines.append((f"answer {code} {events}", m.event_id, 0))

    def rule(self, command: Command, m: Meta) -> str | None:
        if isinstance(command, RegisterTenant):
            if m.tenant_id in self.tenants:
                return "TENANT_EXISTS"
            self.tenants[m.tenant_id] = {}
            self.say("TenantRegistered", m.tenant_id)
            self.say("ApiTokenIssued", m.tenant_id)
            return None
        if m.tenant_id not in self.tenants:
            return "TENANT_NOT_FOUND"
        streams = self.tenants[m.tenant_id]
        stream = streams.get(m.aggregate_id)
        if isinstance(command, CreateStream):
            if stream is not None:
                return "STREAM_EXISTS"
            if any(s["slug"] == command.slug and not s["deleted"] for s in streams.values()):
                return "SLUG_TAKEN"
            streams[m.aggregate_id] = {"slug": command.slug, "title": command.title, "keys": [command.key_hash], "deleted": False}
            self.say("StreamCreated", m.aggregate_id)
            return None
        if stream is None or stream["deleted"]:
            return "STREAM_NOT_FOUND"
        return self.change(command, m.aggregate_id, stream)

    def change(self, command: Command, aggregate: UUID, stream: dict[str, object]) -> str | None:
        if isinstance(command, RenameStream):
            if command.title == "":
                return "TITLE_INVALID"
            if command.title != stream["title"]:
                stream["title"] = command.title
                self.say("StreamRenamed", aggregate)
        elif isinstance(command, RotateStreamKey):
            keys = stream["keys"]
            assert isinstance(keys, list)
            if command.grace_seconds < 0:
                return "GRACE_INVALID"
            if command.key_hash in keys[-2:]:
                return "KEY_REUSED"
            keys.append(command.key_hash)
            self.say("StreamKeyRotated", aggregate)
        else:
            stream["deleted"] = True
            self.say("StreamDeleted", aggregate)
        return None


async def equals_model(of: Client) -> tuple[int, int]:
    """Compares the log with the model, record by record; how many commands and decisions there were."""
    commands = await of.read(of.topics.commands)
    decisions = await of.read(of.topics.decisions)
    counted = 0
    for partition in range(PARTITIONS):
        model = Model()
        for record in commands[partition]:
            command, m = codec.decode(record.value)
            assert isinstance(command, Command)
            model.take(command, m)
        written: list[tuple[str, UUID, object]] = []
        for record in decisions[partition]:
            event, m = codec.decode(record.value)
            if isinstance(event, CommandHandled):
                written.append((f"answer {event.code} {event.events}", event.command_id, 0))
            else:
                written.append((type(event).__name__, m.aggregate_id, m.version))
        assert written == model.lines, f"partition {partition}"
        counted += len(written)
    return sum(map(len, commands)), counted
