"""The Hypothesis machine over the workers of a projection: what may happen to them, in any order."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.sim.commands import quiet
from tests.sim.draws import by_the_seed_alone
from tests.sim.stores.history import DECISIONS, GARBAGE, KINDS
from tests.sim.stores.run import REAL, Mutation, ProjectionRun, told
from tests.sim.stores.wire import Fault

EXAMPLES: Final = int(os.environ.get("FW_SIM_EXAMPLES", "15"))
STEPS: Final = 25

which = st.integers(0, 5)
two = st.integers(0, 1)
faults = st.sampled_from([fault.name for fault in Fault])


class ProjectionMachine(RuleBasedStateMachine):
    """Steps are `ProjectionRun`'s; whatever breaks is told in words, with the command that shows it again."""

    projection = "streams"
    mutation = REAL

    @initialize(seed=st.integers(0, 1 << 16), facts=st.lists(st.tuples(two, which, two), min_size=4, max_size=9))
    def begin(self, seed: int, facts: list[tuple[int, int, int]]) -> None:
        self.run = ProjectionRun(self.projection, seed, self.mutation)
        self.has_failed = False
        self.do("start")
        for kind in ("create", "rename", "token", "rename"):
            self.do("decide", 0, kind, 0)
        for tenant, fact, stream in facts:
            self.do("say", tenant, self.kind(fact), stream, 1)
        self.do("rebalance", 0)

    def kind(self, n: int) -> str:
        """A kind of fact; most are such that the projection reads."""
        read = [kind for kind, event in KINDS.items() if event in {of.__name__ for of in self.run.projection.handles}]
        return [*read, "joined"][n % (len(read) + 1)]

    def do(self, *step: str | int) -> None:
        try:
            with quiet():
                self.run.do(*step)
        except AssertionError as error:
            self._failed(error)

    def _failed(self, error: AssertionError) -> None:
        self.has_failed = True
        error.add_note(told(self.run))
        raise error

    @rule()
    def start(self) -> None:
        self.do("start")

    @rule(n=which)
    def kill(self, n: int) -> None:
        self.do("kill", n)

    @rule(n=which)
    def freeze(self, n: int) -> None:
        self.do("freeze", n)

    @rule(n=which)
    def wake(self, n: int) -> None:
        self.do("wake", n)

    @rule(shift=st.integers(0, 2))
    def rebalance(self, shift: int) -> None:
        self.do("rebalance", shift)

    @rule(nth=st.integers(1, 7), fault=faults, of=which, count=st.integers(1, 5))
    def deliver_and_strike(self, nth: int, fault: str, of: int, count: int) -> None:
        self.do("trap_owner", of, nth, fault)
        self.do("deliver", of, count)

    @rule(tenant=two, kind=st.integers(0, 7), nth=st.integers(1, 5), fault=faults)
    def strike(self, tenant: int, kind: int, nth: int, fault: str) -> None:
        self.do("start")
        self.do("strike", tenant, self.kind(kind), 0, nth, fault)

    @rule(tenant=two, kind=st.integers(0, 7), nth=st.integers(1, 5), fault=faults)
    def strike_and_take_over(self, tenant: int, kind: int, nth: int, fault: str) -> None:
        self.do("strike", tenant, self.kind(kind), 0, nth, fault)
        self.do("say", tenant, self.kind(kind), 0, 2)
        self.do("start")
        self.do("rebalance", 1)
        for of in range(4):
            self.do("deliver", of, 9)
        self.do("wake", 0)
        self.do("time", 6)

    @rule(of=which, count=st.integers(1, 5))
    def deliver(self, of: int, count: int) -> None:
        self.do("deliver", of, count)

    @rule(seconds=st.sampled_from([1, 6]))
    def time(self, seconds: int) -> None:
        self.do("time", seconds)

    @rule(of=which)
    def engine_dies(self, of: int) -> None:
        """ClickHouse, in the middle of an insert."""
        self.do("engine_dies")
        self.do("deliver", of, 3)
        self.do("time", 6)

    @rule(commits=st.integers(0, 3))
    def postgres_dies(self, commits: int) -> None:
        self.do("postgres_dies", commits)

    @rule(n=which, kept=st.integers(0, 2))
    def expire(self, n: int, kept: int) -> None:
        self.do("expire", n, kept)

    @rule(tenant=two, kind=st.sampled_from(DECISIONS), stream=two)
    def decide(self, tenant: int, kind: str, stream: int) -> None:
        self.do("decide", tenant, kind, stream)

    @rule(tenant=two, kind=st.integers(0, 7), stream=two, second=st.integers(0, 2))
    def say(self, tenant: int, kind: int, stream: int, second: int) -> None:
        self.do("say", tenant, self.kind(kind), stream, second)

    @rule(tenant=two, kind=st.integers(0, 7), stream=two, second=st.integers(0, 2))
    def intrude(self, tenant: int, kind: int, stream: int, second: int) -> None:
        self.do("intrude", tenant, self.kind(kind), stream, second)

    @rule(n=st.integers(0, 20))
    def say_again(self, n: int) -> None:
        self.do("say_again", n)

    @rule(tenant=two, kind=st.sampled_from(GARBAGE), stream=two)
    def soil(self, tenant: int, kind: str, stream: int) -> None:
        self.do("soil", tenant, kind, stream)

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        try:
            if not self.has_failed:
                with quiet():
                    self.run.settle()
        except AssertionError as error:
            self._failed(error)
        finally:
            with quiet():
                self.run.end()


def explore(projection: str, mutation: Mutation = REAL, examples: int = EXAMPLES) -> None:
    """Runs the machine, on mutated ground perhaps. Raises what it found; of the real code the smallest story of it."""
    phases = [Phase.generate, Phase.shrink] if mutation is REAL else [Phase.generate]

    class Machine(ProjectionMachine):
        pass

    Machine.projection, Machine.mutation = projection, mutation
    with by_the_seed_alone():
        run_state_machine_as_test(
            Machine,
            settings=settings(
                derandomize=True,
                database=None,
                deadline=None,
                max_examples=examples,
                stateful_step_count=STEPS,
                phases=phases,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )
