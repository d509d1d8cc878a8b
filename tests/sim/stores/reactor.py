"""The real erasure reactor beside a real command worker, over a simulated Kafka and key store: steps that hurt them, in words.

Invariant: a run is its seed and its steps. What must hold: no position passes an erasure that has not happened; and in the end
each erasure was decided once and confirmed once, with as many keys as it destroyed, no key that was made before it can be read,
and every other key can.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from aiokafka.errors import KafkaError

from commands.reactors.erasure import Erasures, expiry_id
from commands.reactors.follow import Follower
from commands.worker import CommandWorker
from streams.codec import decode, encode
from streams.errors import Transient
from streams.generated import Decision, ErasureReason, ErasureRequested, Meta, PersonalKind, RequestErasure, SubjectErased
from streams.ids import NAMESPACE, derive
from streams.privacy.key_store import Due, KeyStore, NewKey
from streams.privacy.master_key import MasterKey
from streams.privacy.people import Whose
from streams.topics import Topics, partition_of
from tests.privacy import settings_of
from tests.sim.cluster import SimCluster
from tests.sim.command_model import Wrong, contiguous
from tests.sim.loop import BEGINNING, Process, SimLoop
from tests.sim.network import Action, Moment, Trap
from tests.sim.partition_log import Entry
from tests.sim.producer import SimProducer
from tests.sim.stores import keys
from tests.sim.stores.heap import Row
from tests.sim.stores.postgres import PostgresServer
from tests.sim.stores.wire import Fault, Wire
from tests.sim.stores.wire import Trap as WireTrap

Step = tuple[str | int, ...]
TENANTS: Final = tuple(derive(NAMESPACE, "simulated tenant", n) for n in range(2))
PEOPLE: Final = (
    *(Whose(tenant, PersonalKind.VIEWER, tag * 32) for tenant in TENANTS for tag in (b"a", b"b")),
    Whose(TENANTS[0], PersonalKind.VIEWER_DAY, None, BEGINNING.date()),
)
"""The last one's keys have a time: a minute."""
MASTER: Final = MasterKey(b"m" * 32)
REACTORS_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class Mutation:
    """A piece of the real thing replaced, to see whether anybody notices."""

    follower: type[Follower] = Follower
    store: type[KeyStore] = KeyStore


REAL: Final = Mutation()


@dataclass(eq=False)
class Reacting:
    process: Process
    task: asyncio.Task[None]

    @property
    def lives(self) -> bool:
        return not self.process.is_killed and not self.task.done()


class ReactorRun:
    def __init__(self, seed: int, mutation: Mutation = REAL) -> None:
        self.seed, self._mutation = seed, mutation
        self.steps: list[Step] = []
        self.story: list[str] = []
        self.topics = Topics("sim.")
        self.loop = SimLoop(seed)
        self.kafka = SimCluster(self.loop)
        self.kafka.create_topics(self.topics)
        self.kafka.network.on_sprung = self._sprung
        self.wire = Wire(self.loop, self._tell)
        self.postgres = PostgresServer(self.wire, also=keys.STATEMENTS)
        keys.made(self.postgres.heap)
        self._reactors: list[Reacting] = []
        self._workers: list[Process] = []
        self._kept: dict[UUID, NewKey] = {}
        self._number = 0
        self._ingress = self.loop.process("the ingress")
        self._ingress_store = self._store()
        self._client = self.loop.process("the client")
        self._requests: list[tuple[RequestErasure, Meta]] = []
        self._sending: list[asyncio.Task[None]] = []
        self._producer = self.loop.run(self._client_producer())
        self._begin_worker()

    async def _client_producer(self) -> SimProducer:
        async def made() -> SimProducer:
            producer = self.kafka.idempotent_producer("client")
            await producer.start()
            return producer

        return await self._client.start(made())

    def do(self, *step: str | int) -> None:
        self.steps.append(step)
        name, *arguments = step
        getattr(self, f"step_{name}")(*arguments)
        self.loop.run_for(0.02)
        self._require()

    def _store(self) -> KeyStore:
        store = self._mutation.store(settings_of("", Path("unused")))
        store._opened = self.postgres.pool(), MASTER
        return store

    # steps: processes

    def step_start(self) -> None:
        if sum(reactor.lives for reactor in self._reactors) >= REACTORS_AT_ONCE:
            return
        process = self.loop.process(f"reactor {len(self._reactors) + 1}")

        async def run() -> None:
            """As `commands.reactors.__main__` does it."""
            producer: SimProducer = self.kafka.idempotent_producer("reactors")
            while True:
                try:
                    await producer.start()
                    break
                except KafkaError:
                    await asyncio.sleep(0.5)
            store = self._store()
            erasures = Erasures(store, producer, self.topics, process.now)
            follower = self._mutation.follower(erasures.reactor, self.kafka, self.topics, store)
            await asyncio.gather(follower.run(), erasures.keep_expiring())

        self._reactors.append(Reacting(process, process.start(run())))
        self._tell(f"{process} starts")
        self.loop.run_for(0.5)

    def step_kill(self, n: int) -> None:
        if (reactor := self._living(n)) is not None:
            self.wire.kill(reactor.process)
            self._tell(f"{reactor.process} is killed")

    def step_freeze(self, n: int) -> None:
        if (reactor := self._living(n)) is not None:
            reactor.process.freeze()
            self._tell(f"{reactor.process} is frozen")

    def step_wake(self, n: int) -> None:
        if frozen := [reactor.process for reactor in self._reactors if reactor.lives and reactor.process.is_frozen]:
            frozen[n % len(frozen)].wake()
            self._tell(f"{frozen[n % len(frozen)]} wakes up")

    def step_skew(self, n: int, minutes: int) -> None:
        if (reactor := self._living(n)) is not None:
            reactor.process.clock_skew = timedelta(minutes=minutes)
            self._tell(f"the clock of {reactor.process} is {minutes} minutes off")

    def step_strike(self, n: int, nth: int, fault: str) -> None:
        """Something happens to the nth statement that a reactor gives from here on."""
        if (reactor := self._living(n)) is not None:
            self.wire.traps.append(WireTrap(reactor.process, nth, Fault[fault]))

    def step_trap(self, n: int, moment: Moment, action: Action) -> None:
        """Something happens when a reactor sends its next command."""
        if (reactor := self._living(n)) is not None:
            self.kafka.network.trap(reactor.process, "Produce", moment, action)

    def step_worker_dies(self) -> None:
        self._workers[-1].kill()
        self._begin_worker()
        self._tell("the command worker is killed and starts again")

    def _begin_worker(self) -> None:
        process = self.loop.process(f"command worker {len(self._workers) + 1}")
        self._workers.append(process)
        process.start(CommandWorker(self.kafka, self.topics, clock=process.now).run())

    # steps: the world

    def step_time(self, seconds: int) -> None:
        self.loop.run_for(seconds)
        self._tell(f"{seconds} s pass")

    def step_kafka(self, lose_request: int, lose_answer: int) -> None:
        faults = self.kafka.network.faults
        faults.lose_request, faults.lose_answer = lose_request / 100, lose_answer / 100
        self._tell(f"Kafka loses {lose_request}% of requests and {lose_answer}% of answers")

    def step_kafka_restarts(self) -> None:
        self.kafka.network.restart(3)
        self._tell("Kafka is away for 3 s")

    def step_postgres_dies(self) -> None:
        lost = self.postgres.crash(4)
        self._tell(f"Postgres is killed and comes back without its last {lost} commits")

    def step_restored(self) -> None:
        """As `fw restore` leaves it: no position, so every decision is read again."""
        self.postgres.heap.tables[keys.POSITIONS].clear()
        self._tell("the reactors' positions are gone")

    # steps: people

    def step_register(self, who: int, count: int, seconds_ago: int) -> None:
        """Keys come to the ingress, made some time ago at an edge that was cut off."""
        whose = PEOPLE[who % len(PEOPLE)]
        expires = None if whose.day is None else BEGINNING + timedelta(minutes=1)
        came = [self._key(whose, seconds_ago, expires) for _ in range(count)]

        async def register() -> None:
            while True:
                try:
                    await self._ingress_store.register(came)
                except Transient:
                    await asyncio.sleep(0.5)
                else:
                    self._kept.update((key.key_id, key) for key in came)
                    return

        self._sending.append(self._ingress.start(register()))
        self._tell(f"{count} keys of person {who % len(PEOPLE) + 1} come, made {seconds_ago} s ago")

    def _key(self, whose: Whose, seconds_ago: int, expires: object) -> NewKey:
        self._number += 1
        made_at = self._ingress.now() - timedelta(seconds=seconds_ago)
        key_id = derive(NAMESPACE, "simulated key", self._number)
        return NewKey(key_id, self._number.to_bytes(32, "big"), whose, made_at, expires)  # type: ignore[arg-type]

    def step_erase(self, who: int) -> None:
        whose = PEOPLE[who % (len(PEOPLE) - 1)]
        command_id = derive(NAMESPACE, "simulated erasure", len(self._requests))
        at = self._client.now()
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        about = derive(command_id, "erasure")
        meta = Meta(command_id, whose.tenant_id, about, 0, command_id, command_id, at, "token:sim")
        self._requests.append((RequestErasure(whose.kind, ErasureReason.REQUESTED, whose.subject_tag), meta))
        self._send(len(self._requests) - 1)
        self._tell(f"erasure {len(self._requests)} is requested, of person {who % (len(PEOPLE) - 1) + 1}")

    def step_ask_again(self, n: int) -> None:
        if self._requests:
            self._send(n % len(self._requests))
            self._tell(f"erasure {n % len(self._requests) + 1} is requested again")

    def _send(self, n: int) -> None:
        command, meta = self._requests[n]

        async def send() -> None:
            await self._producer.send_and_wait(
                self.topics.commands.name, encode(command, meta), meta.tenant_id.bytes, partition_of(meta.tenant_id)
            )

        self._sending.append(self._client.start(send()))

    # what must hold

    def _require(self) -> None:
        for reactor in self._reactors:
            if reactor.task.done() and not reactor.process.is_killed:
                raise Wrong(f"{reactor.process} ended itself: {reactor.task!r}")
        done = self.postgres.heap.tables[keys.ERASURES]
        for (_, _, partition), row in self.postgres.heap.tables[keys.POSITIONS].items():
            for entry in self._decisions(partition):
                event, meta = decode(entry.value or b"")
                is_passed = isinstance(event, ErasureRequested) and entry.offset < row["next_offset"]
                if is_passed and (meta.aggregate_id,) not in done:
                    raise Wrong(f"the position has passed an erasure at {partition}/{entry.offset} that has not happened")

    def settle(self) -> None:
        """Everybody wakes and nothing else happens; then what was decided must have happened."""
        self.wire.traps.clear()
        self.kafka.network.traps.clear()
        self.kafka.network.faults.heal()
        for reactor in self._reactors:
            reactor.process.clock_skew = timedelta()
            reactor.process.wake()
        self._tell("everything heals and everybody wakes")
        self.loop.run_for(1)
        self.step_start()
        self.loop.run_for(150)  # longer than any transaction, pause, or key of the day lasts
        self._require()
        self.check()

    def check(self) -> None:
        if left := [task for task in self._sending if not task.done()]:
            raise Wrong(f"{len(left)} registrations or requests wait for ever")
        decided: dict[UUID, list[Decision]] = {}
        for partition in sorted({partition_of(tenant) for tenant in TENANTS}):
            entries = self._decisions(partition)
            contiguous(entries)
            for event, meta in (decode(entry.value or b"") for entry in entries):
                if isinstance(event, Decision):
                    decided.setdefault(meta.aggregate_id, []).append(event)
        expected = {meta.aggregate_id for _, meta in self._requests}
        day = PEOPLE[-1]
        assert day.day is not None
        expiry = derive(expiry_id(Due(day.tenant_id, day.kind, day.day)), "erasure")
        if any(key.whose == day for key in self._kept.values()):
            expected.add(expiry)
        rows = self.postgres.heap.tables[keys.ERASURES]
        if set(decided) - {expiry} != expected - {expiry}:
            raise Wrong(f"{len(expected)} erasures were asked for, {len(decided)} were decided")
        for erasure_id, events in sorted(decided.items()):
            if [type(event) for event in events] != [ErasureRequested, SubjectErased]:
                raise Wrong(f"an erasure is {[type(event).__name__ for event in events]} on the log")
            told = events[1]
            assert isinstance(told, SubjectErased)
            if (recorded := rows[(erasure_id,)]["keys_destroyed"]) != told.keys_destroyed:
                raise Wrong(f"the log says that an erasure destroyed {told.keys_destroyed} keys, and it was {recorded}")
        self._check_keys()

    def _check_keys(self) -> None:
        heap = self.postgres.heap
        erased = [(keys._of(row), row["destroyed_at"], row["keys_destroyed"]) for row in heap.tables[keys.ERASURES].values()]
        stored = list(heap.tables[keys.KEYS].values())
        for n, whose in enumerate(PEOPLE, 1):
            of = (whose.tenant_id, whose.kind.value, whose.subject_tag, whose.day)
            counted = sum(count for who, _, count in erased if who == of)
            destroyed = sum(row["by"] == "an erasure" for row in stored if keys._of(row) == of)
            if counted != destroyed:
                raise Wrong(f"{destroyed} keys of person {n} were destroyed by erasures, which say {counted}")
            own = {key_id: key for key_id, key in self._kept.items() if key.whose == whose}
            found = self.loop.run(self._store().keys(whose.tenant_id, own))
            for key_id, key in own.items():
                is_erased = any(who == of and at >= key.made_at for who, at, _ in erased)
                is_over = key.expires_at is not None
                if found.get(key_id, b"") != (None if is_erased or is_over else key.key):
                    raise Wrong(f"a key of person {n}, made at {key.made_at}, is {'kept' if is_erased or is_over else 'gone'}")

    def _decisions(self, partition: int) -> Sequence[Entry]:
        return self.kafka.broker.log(self.topics.decisions.name, partition).read(committed=True)

    def positions(self) -> Sequence[Row]:
        return list(self.postgres.heap.tables[keys.POSITIONS].values())

    def _living(self, n: int) -> Reacting | None:
        living = [reactor for reactor in self._reactors if reactor.lives]
        return living[n % len(living)] if living else None

    def _tell(self, sentence: str) -> None:
        self.story.append(f"{self.loop.time():8.3f} s  {sentence}")

    def _sprung(self, trap: Trap) -> None:
        done = {"kill": "is killed", "freeze": "is frozen", "lose": "loses its connection"}[trap.action]
        self._tell(
            f"{trap.process.name} {done} {'when it sends' if trap.moment == 'before' else 'when the broker has'} a command"
        )

    def program(self) -> str:
        return json.dumps(["reactor", self.seed, *self.steps], separators=(",", ":"))

    def digest(self) -> str:
        logs = [[(e.offset, e.value) for e in self._decisions(partition_of(tenant))] for tenant in TENANTS]
        return repr((self.story, logs, self.loop.steps))

    def end(self) -> None:
        self.kafka.network.faults.heal()
        self.kafka.network.traps.clear()
        self.wire.traps.clear()
        self.loop.end()


def told(run: ReactorRun) -> str:
    lines = "\n".join(run.story)
    return f"What happened:\n{lines}\nTo see it again:\n  python -m tests.sim.stores '{run.program()}'"


def replay(program: str, mutation: Mutation = REAL) -> ReactorRun:
    """The run that `program` wrote down, to its end. Raises Wrong, with the story as a note."""
    _, seed, *steps = json.loads(program)
    run = ReactorRun(seed, mutation)
    try:
        for step in steps:
            run.do(*step)
        run.settle()
    except AssertionError as error:
        error.add_note(told(run))
        raise
    finally:
        run.end()
    return run
