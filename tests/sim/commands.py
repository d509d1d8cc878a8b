"""Command workers on the simulated cluster: steps that hurt them, told in words, and what must hold afterwards.

Invariant: a run is its seed and its steps. Everything that happens, happens through `do`, so whatever is written down there
happens again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from aiokafka import TopicPartition

from commands.state import PartitionState
from commands.worker import CommandWorker
from streams import codec, ids
from streams.generated import Command, CreateStream, DeleteStream, Meta, RegisterTenant, RenameStream, RotateStreamKey
from streams.kafka import Cluster
from streams.topics import PARTITIONS, Topics, partition_of
from tests.sim.cluster import SimCluster
from tests.sim.command_model import Clocks, Sent, Wrong, check, contiguous
from tests.sim.command_mutants import MUTANTS
from tests.sim.loop import BEGINNING, Process, SimLoop
from tests.sim.network import Action, Moment, Trap
from tests.sim.producer import SimProducer

Step = tuple[str | int | float, ...]
"""Its name and its arguments: JSON."""

WORKERS_AT_ONCE: Final = 3
APIS: Final = {
    "InitProducerId": "fences the writer before it",
    "OffsetFetch": "asks for its position",
    "ListOffsets": "asks where the log ends",
    "Fetch": "fetches",
    "AddPartitionsToTxn": "begins to write",
    "Produce": "writes its decisions",
    "TxnOffsetCommit": "writes its position",
    "EndTxn": "commits",
    "Heartbeat": "says that it lives",
    "JoinGroup": "joins the group",
}
DONE: Final[dict[Action, str]] = {
    "kill": "is killed",
    "freeze": "is frozen",
    "lose": "loses its connection",
}
KINDS: Final = ("register", "create", "rename", "rotate", "delete")


def _tenants() -> Sequence[UUID]:
    """Two of one partition and one of another: they meet, and they do not."""
    made = [ids.derive(ids.NAMESPACE, "simulated tenant", n) for n in range(200)]
    first = made[0]
    same = next(t for t in made[1:] if partition_of(t) == partition_of(first))
    other = next(t for t in made if partition_of(t) != partition_of(first))
    return first, same, other


TENANTS: Final = _tenants()


@dataclass(eq=False)
class Worker:
    name: str
    process: Process
    worker: CommandWorker
    task: asyncio.Task[None]
    is_stopping: bool = False

    @property
    def lives(self) -> bool:
        return not self.process.is_killed and not self.task.done()


class CommandRun:
    """One run. `mutant` names the piece that is taken out of what the workers stand on, to see whether anybody notices."""

    def __init__(self, seed: int, mutant: str | None = None) -> None:
        self.seed, self.mutant = seed, mutant
        self.steps: list[Step] = []
        self.story: list[str] = []
        self.topics = Topics("sim.")
        self.loop = SimLoop(seed)
        self.sim = SimCluster(self.loop)
        self.sim.create_topics(self.topics)
        self.sim.network.on_sprung = self._sprung
        self._cluster: Cluster = self.sim if mutant is None else MUTANTS[mutant](self.sim)
        self._workers: list[Worker] = []
        self._sent: list[tuple[Command, Meta]] = []
        self._read: list[list[Sent]] = [[] for _ in range(PARTITIONS)]
        self._clocks = Clocks()
        self._client = self.loop.process("the client")
        self._producer: SimProducer = self.loop.run(self._client_producer())
        self._sending: list[asyncio.Task[object]] = []

    async def _client_producer(self) -> SimProducer:
        async def made() -> SimProducer:
            producer = self.sim.idempotent_producer("client")
            await producer.start()
            return producer

        return await self._client.start(made())

    def do(self, *step: str | int | float) -> None:
        """One step, and what must hold after each."""
        self.steps.append(step)
        name, *arguments = step
        getattr(self, f"step_{name}")(*arguments)
        self._require_no_crash()

    def _require_no_crash(self) -> None:
        for worker in self._workers:
            if worker.task.done() and not worker.task.cancelled() and (error := worker.task.exception()) is not None:
                raise Wrong(f"{worker.name} ended itself: {error!r}")

    # steps: workers

    def step_start(self) -> None:
        if sum(worker.lives for worker in self._workers) < WORKERS_AT_ONCE:
            name = f"worker {len(self._workers) + 1}"
            process = self.loop.process(name)
            worker = CommandWorker(self._cluster, self.topics, clock=process.now)
            self._workers.append(Worker(name, process, worker, process.start(worker.run())))
            self._tell(f"{name} starts")

    def step_kill(self, n: int) -> None:
        if (worker := self._living(n)) is not None:
            worker.process.kill()
            self._tell(f"{worker.name} is killed")

    def step_stop(self, n: int) -> None:
        if (worker := self._living(n)) is not None:
            worker.worker.stop()
            self._tell(f"{worker.name} is asked to end")

    def step_freeze(self, n: int) -> None:
        if (worker := self._living(n)) is not None:
            worker.process.freeze()
            self._tell(f"{worker.name} is frozen")

    def step_wake(self, n: int) -> None:
        frozen = [worker for worker in self._workers if worker.lives and worker.process.is_frozen]
        frozen.sort(key=lambda worker: worker.process.frozen_at)  # 0 is who has been so for longest
        if frozen:
            worker = frozen[n % len(frozen)]
            worker.process.wake()
            self._tell(f"{worker.name} wakes up")

    def step_trap(self, n: int, api: str, moment: Moment, action: Action) -> None:
        if (worker := self._living(n)) is not None:
            self.sim.network.trap(worker.process, api, moment, action)

    def step_untrap(self) -> None:
        self.sim.network.traps.clear()

    def step_skew(self, n: int, minutes: int) -> None:
        if (worker := self._living(n)) is not None:
            skew = timedelta(minutes=minutes)
            worker.process.clock_skew = skew
            self._clocks = Clocks(min(self._clocks.slowest, skew), max(self._clocks.fastest, skew))
            self._tell(f"the clock of {worker.name} is {minutes} minutes off")

    # steps: the world

    def step_time(self, seconds: float) -> None:
        self.loop.run_for(seconds)
        self._tell(f"{seconds:g} s pass")

    def step_faults(self, lose_request: float, lose_answer: float, delay: float) -> None:
        faults = self.sim.network.faults
        faults.lose_request, faults.lose_answer, faults.delay = lose_request, lose_answer, delay
        self._tell(f"the network loses {lose_request:.0%} of requests and {lose_answer:.0%} of answers, and delays {delay:.0%}")

    def step_restart(self, seconds: float) -> None:
        self.sim.network.restart(seconds)
        self._tell(f"the broker is away for {seconds:g} s")

    def step_expire(self) -> None:
        """Retention takes what was decided from the command topic."""
        offsets = self.sim.broker.groups.of(f"{self.topics.prefix}commands").offsets
        for tp, position in sorted(offsets.items()):
            self._look(tp.partition)
            self.sim.broker.delete_records(tp, min(position.offset, self.sim.broker.partition(tp).end))
        self._tell("retention deletes the commands that are decided")

    # steps: the client

    def step_send(self, tenant: int, kind: str, stream: int, word: int, minutes: int) -> None:
        owner = TENANTS[tenant % len(TENANTS)]
        about = owner if kind == "register" else ids.derive(owner, "stream", stream)
        command_id = ids.derive(ids.NAMESPACE, "simulated command", len(self._sent))
        at = self._client.now() + timedelta(minutes=minutes)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        meta = Meta(command_id, owner, about, 0, command_id, command_id, at, "token:sim")
        self._sent.append((_command(kind, stream, word, meta), meta))
        self._send(*self._sent[-1])
        when = "" if minutes == 0 else f", dated {minutes} minutes from now"
        self._tell(f"command {len(self._sent)} is sent: {kind} by tenant {tenant % len(TENANTS) + 1}{when}")

    def step_resend(self, n: int, is_late: int) -> None:
        """The same command once more; as a client does it, at a later time, or as a network does."""
        if self._sent:
            command, meta = self._sent[n % len(self._sent)]
            if is_late:
                at = max(self._client.now(), meta.occurred_at)
                meta = replace(meta, occurred_at=at.replace(microsecond=at.microsecond // 1000 * 1000))
            self._send(command, meta)
            self._tell(f"command {n % len(self._sent) + 1} is sent again")

    def step_reuse(self, n: int) -> None:
        if self._sent:
            _, meta = self._sent[n % len(self._sent)]
            command: Command = RenameStream("another wish")
            if meta.aggregate_id == meta.tenant_id:
                command = RegisterTenant("another wish", "fwt_x", b"t" * 32)
            self._send(command, meta)
            self._tell(f"the id of command {n % len(self._sent) + 1} is used for another wish")

    def step_garbage(self, tenant: int, what: int) -> None:
        """No command, half of one, one that belongs elsewhere."""
        owner = TENANTS[tenant % len(TENANTS)]
        stranger = next(t for t in TENANTS if partition_of(t) != partition_of(owner))
        at = ids.derive(owner, "garbage", len(self.steps))
        meta = Meta(at, stranger, stranger, 0, at, at, BEGINNING, "token:sim")
        whole = codec.encode(RegisterTenant("stray", "fwt_x", b"t" * 32), meta)
        self._put(partition_of(owner), (b"garbage", whole[:-3], whole)[what % 3], b"")
        self._tell(f"garbage is sent to the partition of tenant {tenant % len(TENANTS) + 1}")

    # what must hold

    def settle(self) -> None:
        """Everything heals, everybody wakes; then the log must be right to the last record, and equal what workers know."""
        self.sim.network.faults.heal()
        self.sim.network.traps.clear()
        for worker in self._workers:
            worker.process.wake()
        self._tell("everything heals and everybody wakes")
        self.loop.run_for(5)
        self._require_no_crash()
        self.step_start()
        self.loop.run_until(lambda: self._is_answered() and self._is_owned(), 200)
        self.loop.run_for(45)  # longer than any transaction may stay open
        self._require_no_crash()
        self.check()

    def check(self) -> None:
        for partition in range(PARTITIONS):
            self._look(partition)
            decisions = self.sim.broker.log(self.topics.decisions.name, partition).read()
            letters = self.sim.broker.log(self.topics.dead_letters.name, partition).read()
            contiguous(decisions)
            check(partition, self._read[partition], decisions, letters, self._clocks)
            folded = PartitionState(partition)
            for entry in decisions:
                folded.fold(*codec.decode(entry.value or b""))
            for owner, state in self._states(partition):
                if state.boundaries != folded.boundaries or self._answers(state) != self._answers(folded):
                    raise Wrong(f"partition {partition}: what {owner} knows is not what the log says")

    def _answers(self, state: PartitionState) -> object:
        answers = state.answers
        return len(answers), answers.horizon, [answers.get(meta.event_id) for _, meta in self._sent]

    def _states(self, partition: int) -> Iterator[tuple[str, PartitionState]]:
        for worker in self._workers:
            if worker.lives:
                for of in worker.worker.partitions:
                    if of.state is not None and of.is_ready and of.state.partition == partition:
                        yield worker.name, of.state

    def _is_owned(self) -> bool:
        return sum(sum(1 for _ in self._states(partition)) == 1 for partition in range(PARTITIONS)) == PARTITIONS

    def _is_answered(self) -> bool:
        """Whether every position has reached the end of its commands."""
        if any(not task.done() for task in self._sending):
            return False
        offsets = self.sim.broker.groups.of(f"{self.topics.prefix}commands").offsets
        for partition in {partition_of(tenant) for tenant in TENANTS}:
            tp = TopicPartition(self.topics.commands.name, partition)
            end = self.sim.broker.partition(tp).end
            if end and (tp not in offsets or offsets[tp].offset < end):
                return False
        return True

    def _look(self, partition: int) -> None:
        """Notes what stands on a command partition, before retention takes it."""
        known = self._read[partition]
        for entry in self.sim.broker.log(self.topics.commands.name, partition).read():
            if not known or entry.offset > known[-1].offset:
                at = BEGINNING + timedelta(milliseconds=entry.timestamp_ms - BEGINNING.timestamp() * 1000)
                known.append(Sent(entry.offset, entry.value or b"", at))

    # small things

    def program(self) -> str:
        """The run as one argument of `python -m tests.sim`."""
        return json.dumps([self.seed, self.mutant, *self.steps], separators=(",", ":"))

    def digest(self) -> str:
        """Everything on every log: two runs that agree in it did the same."""
        logs = self.sim.broker.topics
        everything = [(name, log.tp.partition, log.read(committed=False)) for name in sorted(logs) for log in logs[name]]
        found = hashlib.sha256(repr(everything).encode()).hexdigest()[:16]
        return f"{found} after {self.loop.steps} steps and {self.sim.network.requests} requests"

    def end(self) -> None:
        self.sim.network.faults.heal()
        self.sim.network.traps.clear()
        self.loop.end()

    def _living(self, n: int) -> Worker | None:
        living = [worker for worker in self._workers if worker.lives]
        return living[n % len(living)] if living else None

    def _send(self, command: Command, meta: Meta) -> None:
        self._put(partition_of(meta.tenant_id), codec.encode(command, meta), meta.tenant_id.bytes)

    def _put(self, partition: int, value: bytes, key: bytes) -> None:
        send = self._producer.send_and_wait(self.topics.commands.name, value, key=key, partition=partition)
        self._sending.append(self._client.start(send))

    def _tell(self, sentence: str) -> None:
        self.story.append(f"{self.loop.time():8.3f} s  {sentence}")

    def _sprung(self, trap: Trap) -> None:
        when = "when it" if trap.moment == "before" else "when the broker has done what it asked: it"
        self._tell(f"{trap.process.name} {DONE[trap.action]} {when} {APIS[trap.api]}")


def _command(kind: str, stream: int, word: int, meta: Meta) -> Command:
    key = bytes([word]) * 32
    match kind:
        case "register":
            return RegisterTenant(f"tenant {word}", "fwt_x", b"t" * 32)
        case "create":
            return CreateStream(f"title {word}", f"slug-{word}", "play", f"internal-{stream}", "sk_a", key)
        case "rename":
            return RenameStream(f"title {word}" if word else "")
        case "rotate":
            return RotateStreamKey("sk_b", key, 60 if word else -5, meta.occurred_at)
        case _:
            return DeleteStream()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What workers log is not the story."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
