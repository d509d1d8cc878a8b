"""The Hypothesis machine over the erasure reactor: what may happen to it, in any order."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.sim.commands import quiet
from tests.sim.draws import by_the_seed_alone
from tests.sim.network import Action, Moment
from tests.sim.stores.reactor import REAL, Mutation, ReactorRun, told
from tests.sim.stores.wire import Fault

EXAMPLES: Final = int(os.environ.get("FW_SIM_EXAMPLES", "15"))
STEPS: Final = 20

which = st.integers(0, 1)
who = st.integers(0, 4)
ages = st.sampled_from([0, 0, 5, 60])
faults = st.sampled_from([fault.name for fault in Fault])


class ReactorMachine(RuleBasedStateMachine):
    """Steps are `ReactorRun`'s; whatever breaks is told in words, with the command that shows it again."""

    mutation = REAL

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.run = ReactorRun(seed, self.mutation)
        self.has_failed = False
        self.do("start")
        self.do("time", 5)
        for person in range(5):
            self.do("register", person, 2, 0)

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

    @rule(n=which, minutes=st.sampled_from([-20, -1, 1, 20]))
    def skew(self, n: int, minutes: int) -> None:
        self.do("skew", n, minutes)

    @rule(person=who, n=which, nth=st.integers(1, 9), fault=faults)
    def erase_and_strike(self, person: int, n: int, nth: int, fault: str) -> None:
        """Whoever does it is struck in the midst of it, and another takes over."""
        self.do("start")
        self.do("register", person, 1, 0)
        self.do("strike", n, nth, fault)
        self.do("erase", person)
        self.do("time", 2)
        self.do("start")

    @rule(person=who, n=which, moment=st.sampled_from(["before", "after"]), action=st.sampled_from(["freeze", "kill", "lose"]))
    def erase_and_trap(self, person: int, n: int, moment: Moment, action: Action) -> None:
        self.do("start")
        self.do("register", person, 1, 0)
        self.do("trap", n, moment, action)
        self.do("erase", person)
        self.do("time", 2)
        self.do("start")

    @rule(person=who, ago=ages)
    def register_meanwhile(self, person: int, ago: int) -> None:
        self.do("erase", person)
        self.do("register", person, 1, ago)

    @rule(person=who, count=st.integers(1, 3), ago=ages)
    def register(self, person: int, count: int, ago: int) -> None:
        self.do("register", person, count, ago)

    @rule(person=who)
    def erase(self, person: int) -> None:
        self.do("erase", person)

    @rule(n=which)
    def ask_again(self, n: int) -> None:
        self.do("ask_again", n)

    @rule()
    def worker_dies(self) -> None:
        self.do("worker_dies")

    @rule()
    def postgres_dies(self) -> None:
        self.do("postgres_dies")

    @rule()
    def kafka_restarts(self) -> None:
        self.do("kafka_restarts")

    @rule(requests=st.sampled_from([0, 10, 30]), answers=st.sampled_from([0, 10, 30]))
    def kafka(self, requests: int, answers: int) -> None:
        self.do("kafka", requests, answers)

    @rule()
    def restored(self) -> None:
        self.do("restored")

    @rule(seconds=st.sampled_from([1, 1, 6, 35]))
    def time(self, seconds: int) -> None:
        self.do("time", seconds)

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


def explore(mutation: Mutation = REAL, examples: int = EXAMPLES) -> None:
    """Runs the machine, on mutated ground perhaps. Raises what it found; of the real code the smallest story of it."""
    phases = [Phase.generate, Phase.shrink] if mutation is REAL else [Phase.generate]

    class Machine(ReactorMachine):
        pass

    Machine.mutation = mutation
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
