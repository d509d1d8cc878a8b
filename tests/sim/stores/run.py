"""The real stores and folds of one projection over the simulated log and databases: steps that hurt them, told in words.

Invariant: a run is its seed and its steps, as for command workers (`tests/sim/commands.py`). What must hold: positions never go
back, Postgres rows are at every moment the clean fold up to the stored positions, and in the end every projection is the clean
fold of the whole log, tenant by tenant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from projections.clickhouse_store import ClickHouseStore
from projections.dead_letters import DeadLetters
from projections.model import TP, FactProjection, Store, TableProjection
from projections.postgres_store import TRANSIENT, PostgresStore
from projections.worker import projection_of
from streams.errors import Superseded
from streams.topics import Topics
from tests.sim.cluster import SimCluster
from tests.sim.command_model import Wrong
from tests.sim.loop import SimLoop
from tests.sim.stores.clean import Rows, clean, of_tenant, rows
from tests.sim.stores.clickhouse import ClickHouseServer
from tests.sim.stores.history import TENANTS, History
from tests.sim.stores.postgres import PostgresServer
from tests.sim.stores.statements import BUILDS, LETTERS, OFFSETS
from tests.sim.stores.wire import Fault, Trap, Wire
from tests.sim.stores.worker import Assigned, Fetched, Worker

Step = tuple[str | int, ...]
Projection = TableProjection | FactProjection
WORKERS_AT_ONCE: Final = 3
FORESEEN: Final = (Superseded, *TRANSIENT)
"""What ends a worker and is nobody's fault: the supervisor starts it again."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A piece of the real thing replaced, to see whether anybody notices."""

    postgres: type[PostgresStore] = PostgresStore
    clickhouse: type[ClickHouseStore] = ClickHouseStore
    tables: Callable[[FactProjection], FactProjection] = lambda projection: projection


REAL: Final = Mutation()


class ProjectionRun:
    def __init__(self, name: str, seed: int, mutation: Mutation = REAL) -> None:
        self.name, self.seed, self.mutation = name, seed, mutation
        self.projection: Projection = projection_of(name)
        self.steps: list[Step] = []
        self.story: list[str] = []
        self.topics = Topics("sim.")
        self.loop = SimLoop(seed)
        self.kafka = SimCluster(self.loop)
        self.kafka.create_topics(self.topics)
        self.history = History(self.kafka.broker, self.topics)
        self.wire = Wire(self.loop, self._tell)
        self.postgres = PostgresServer(self.wire)
        self.written = mutation.tables(self.projection) if isinstance(self.projection, FactProjection) else self.projection
        known = [self.written] if isinstance(self.written, FactProjection) else []
        self.clickhouse = ClickHouseServer(self.wire, known)
        self.workers: list[Worker] = []
        self._owners: dict[TP, Worker] = {}
        self._reached: dict[TP, int] = {}
        self._seen: tuple[dict[TP, int], Rows] | None = None

    def do(self, *step: str | int) -> None:
        """One step, and what must hold after each."""
        self.steps.append(step)
        name, *arguments = step
        getattr(self, f"step_{name}")(*arguments)
        self.loop.run_for(0.02)
        self._require()

    # steps: workers

    def step_start(self) -> None:
        if sum(worker.lives for worker in self.workers) < WORKERS_AT_ONCE:
            name = f"worker {len(self.workers) + 1}"
            worker = Worker(name, self.loop.process(name), self.kafka.broker, self._opened)
            self.workers.append(worker)
            worker.begin()
            self.loop.run_for(0.5)
            self._tell(f"{name} starts")

    async def _opened(self) -> Store:
        pool = self.postgres.pool()
        letters = DeadLetters(self.name, self.topics, "nowhere", pool)
        letters._producer = producer = self.kafka.idempotent_producer("letters")
        await producer.start()
        store: PostgresStore | ClickHouseStore
        if isinstance(self.written, TableProjection):
            store = self.mutation.postgres(self.written, self.topics, pool, letters)
        else:
            store = self.mutation.clickhouse(self.written, self.topics, pool, letters, self.clickhouse.client())
        await store.prepare()
        return store

    def step_kill(self, n: int) -> None:
        if (worker := self._living(n)) is not None:
            self.wire.kill(worker.process)
            self._tell(f"{worker.name} is killed")

    def step_freeze(self, n: int) -> None:
        if (worker := self._living(n)) is not None:
            worker.process.freeze()
            self._tell(f"{worker.name} is frozen")

    def step_wake(self, n: int) -> None:
        if frozen := [worker for worker in self.workers if worker.lives and worker.process.is_frozen]:
            frozen[n % len(frozen)].process.wake()
            self._tell(f"{frozen[n % len(frozen)].name} wakes up")

    def step_trap(self, n: int, nth: int, fault: str) -> None:
        """Something happens to the nth request that a worker makes from here on."""
        if (worker := self._living(n)) is not None:
            self.wire.traps.append(Trap(worker.process, nth, Fault[fault]))

    def step_trap_owner(self, of: int, nth: int, fault: str) -> None:
        """The same for whoever has a partition."""
        if tps := sorted(self._owners):
            self.wire.traps.append(Trap(self._owners[tps[of % len(tps)]].process, nth, Fault[fault]))

    def step_rebalance(self, shift: int) -> None:
        """The group gives all partitions to those of whom it hears; a frozen one hears of it when it wakes up."""
        heard = [worker for worker in self.workers if worker.lives and not worker.process.is_frozen]
        if not heard:
            return
        given = {tp: heard[(n + shift) % len(heard)] for n, tp in enumerate(self._tps())}
        for worker in self.workers:
            mine = [tp for tp, owner in given.items() if owner is worker]
            if worker.lives and (mine or worker in self._owners.values()):
                worker.todo.put_nowait(Assigned(mine))
        self._owners = given
        self._tell(
            "the group deals out the partitions: " + ", ".join(f"{t.topic}/{t.partition} to {w.name}" for t, w in given.items())
        )

    def step_deliver(self, n: int, count: int) -> None:
        """A batch of a partition reaches whoever has it."""
        tps = sorted(self._owners)
        if tps:
            tp = tps[n % len(tps)]
            self._owners[tp].todo.put_nowait(Fetched(tp, count))
            self._tell(f"{self._owners[tp].name} gets up to {count} records of {tp.topic}/{tp.partition}")

    def step_strike(self, tenant: int, kind: str, stream: int, nth: int, fault: str) -> None:
        """A new fact comes, and whoever gets it is struck while it is in hand."""
        self._tell(self.history.say(tenant, kind, stream, 1))
        tp = self.history.last
        if tp in self._tps() and tp not in self._owners:
            self.step_rebalance(0)
            self.loop.run_for(0.02)
        if (owner := self._owners.get(tp)) is not None:
            self.wire.traps.append(Trap(owner.process, nth, Fault[fault]))
            owner.todo.put_nowait(Fetched(tp, 9))

    # steps: the world

    def step_time(self, seconds: int) -> None:
        self.loop.run_for(seconds)
        self._tell(f"{seconds} s pass")

    def step_engine_dies(self) -> None:
        self.clickhouse.is_about_to_die = True

    def step_postgres_dies(self, commits: int) -> None:
        lost = self.postgres.crash(commits)
        self._reached = self._positions()
        self._tell(f"Postgres is killed and comes back without its last {lost} commits")

    def step_expire(self, n: int, kept: int) -> None:
        """Retention takes what every build has passed."""
        if tps := sorted(self.history.tps):
            tp = tps[n % len(tps)]
            if (position := self._safe(tp)) is not None and position > kept:
                self.history.expire(tp, position - kept)
                self._tell(f"retention takes {tp.topic}/{tp.partition} up to {position - kept}")

    def _safe(self, tp: TP) -> int | None:
        """A position that even a crash of Postgres does not go behind."""
        tables = [*self.postgres.heap.before, self.postgres.heap.tables]
        found = [_positions(heap.get(OFFSETS, {}), self._active(heap), self.name).get(tp) for heap in tables]
        known = [position for position in found if position is not None]
        return min(known) if len(known) == len(found) else None

    # steps: the log

    def step_decide(self, tenant: int, kind: str, stream: int) -> None:
        self._tell(self.history.decide(tenant, kind, stream))

    def step_say(self, tenant: int, kind: str, stream: int, second: int) -> None:
        self._tell(self.history.say(tenant, kind, stream, second))

    def step_intrude(self, tenant: int, kind: str, stream: int, second: int) -> None:
        self._tell(self.history.say(tenant, kind, stream, second, owner=1 - tenant) + ", about a stream of the other")

    def step_say_again(self, n: int) -> None:
        if said := self.history.say_again(n):
            self._tell(said)

    def step_soil(self, tenant: int, kind: str, stream: int) -> None:
        self._tell(self.history.soil(tenant, kind, stream))

    # what must hold

    def _require(self) -> None:
        for worker in self.workers:
            if worker.task.done() and not worker.task.cancelled() and not isinstance(error := worker.task.exception(), FORESEEN):
                raise Wrong(f"{worker.name} ended itself: {error!r}")
        positions = self._positions()
        for tp, before in self._reached.items():
            if positions.get(tp, -1) < before:
                raise Wrong(f"the position of {tp.topic}/{tp.partition} went back from {before} to {positions.get(tp)}")
        self._reached = positions
        if isinstance(self.projection, TableProjection) and positions and (seen := (positions, self._rows())) != self._seen:
            self._require_equal(clean(self.projection, self.history, positions), "the clean fold up to its positions")
            self._seen = seen

    def settle(self) -> None:
        """Everybody wakes and nothing else happens; then the projection must have all of the log, and no more."""
        self.wire.traps.clear()
        self.clickhouse.is_about_to_die = False
        for worker in self.workers:
            worker.process.wake()
        self._tell("everything heals and everybody wakes")
        for _ in range(40):
            self.loop.run_for(6)
            self._require()
            if self._is_done():
                break
            self.step_start()
            self.loop.run_for(1)
            self.step_rebalance(0)
            for tp, owner in sorted(self._owners.items()):
                owner.todo.put_nowait(Fetched(tp, 7))
        else:
            raise Wrong(f"the projection does not get to the end of the log: it stands at {self._positions()}")
        self.check()

    def check(self) -> None:
        whole = clean(self.projection, self.history, None)
        self._require_equal(whole, "the clean fold of the whole log")
        for tenant in TENANTS:
            alone = clean(self.projection, self.history, None, tenant)
            if of_tenant(self._rows(), tenant) != alone:
                raise Wrong(f"tenant {TENANTS.index(tenant) + 1} has other rows than if it were alone")
        buried = self.postgres.heap.tables[LETTERS]
        for tp, offsets in self.history.garbage.items():
            for offset in sorted(offsets) if tp in self._tps() and self._reads_garbage(tp) else ():
                if (self.name, tp.topic, tp.partition, offset) not in buried:
                    raise Wrong(f"garbage at {tp.topic}/{tp.partition} {offset} was passed over without a letter")

    def _reads_garbage(self, tp: TP) -> bool:
        return {kind.__name__ for kind in self.projection.handles} >= {"StreamWentLive"}

    def _require_equal(self, expected: Rows, what: str) -> None:
        found = self._rows()
        if found != expected:
            missing = [row for row in expected if row not in found][:3]
            extra = [row for row in found if row not in expected][:3]
            raise Wrong(f"{self.name} is not {what}: it lacks {missing} and has {extra}")

    def _rows(self) -> Rows:
        build = self._active(self.postgres.heap.tables)
        return [] if build is None else rows(self.written, build, self.postgres, self.clickhouse)

    def _active(self, tables: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> int | None:
        found = [row["build"] for row in tables[BUILDS].values() if (row["projection"], row["state"]) == (self.name, "active")]
        return found[0] if found else None

    def _positions(self) -> dict[TP, int]:
        tables = self.postgres.heap.tables
        return _positions(tables[OFFSETS], self._active(tables), self.name)

    def _is_done(self) -> bool:
        positions = self._positions()
        idle = all(worker.is_idle for worker in self.workers if worker.lives)
        return idle and all(positions.get(tp, 0) == self.kafka.broker.log(*tp).end for tp in self._tps())

    def _tps(self) -> Sequence[TP]:
        """Partitions of the projection's topics on which anything ever stood."""
        names = {getattr(self.topics, topic).name for topic in self.projection.topics}
        return [tp for tp in sorted(self.history.tps) if tp.topic in names]

    def _living(self, n: int) -> Worker | None:
        living = [worker for worker in self.workers if worker.lives]
        return living[n % len(living)] if living else None

    def _tell(self, sentence: str) -> None:
        self.story.append(f"{self.loop.time():8.3f} s  {sentence}")

    def program(self) -> str:
        """The run as one argument of `python -m tests.sim.stores`."""
        return json.dumps([self.name, self.seed, *self.steps], separators=(",", ":"))

    def digest(self) -> str:
        return repr((self.story, self._rows(), self._positions(), self.loop.steps))

    def end(self) -> None:
        self.wire.traps.clear()
        self.loop.end()


def _positions(table: Mapping[Any, Mapping[str, Any]], build: int | None, name: str) -> dict[TP, int]:
    return {
        TP(row["topic"], row["partition"]): row["next_offset"]
        for row in table.values()
        if row["projection"] == name and row["build"] == build and row["next_offset"] is not None
    }


def told(run: ProjectionRun) -> str:
    lines = "\n".join(run.story)
    return f"What happened:\n{lines}\nTo see it again:\n  python -m tests.sim.stores '{run.program()}'"


def replay(program: str, mutation: Mutation = REAL) -> ProjectionRun:
    """The run that `program` wrote down, to its end. Raises Wrong, with the story as a note."""
    name, seed, *steps = json.loads(program)
    run = ProjectionRun(name, seed, mutation)
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
