"""The Hypothesis machine over an edge node: what may happen to it, in any order."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.sim.commands import quiet
from tests.sim.draws import by_the_seed_alone
from tests.sim.stores.edge import EdgeRun, SteppedJournal, told

EXAMPLES: Final = int(os.environ.get("FW_SIM_EXAMPLES", "15"))
STEPS: Final = 20


class EdgeMachine(RuleBasedStateMachine):
    """Steps are `EdgeRun`'s; whatever breaks is told in words, with the command that shows it again."""

    journal = SteppedJournal

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.has_failed = False
        with quiet():
            self.run = EdgeRun(seed, self.journal)
        self.do("say", 0, 2)

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

    @rule(stream=st.integers(0, 1), count=st.integers(1, 5))
    def say(self, stream: int, count: int) -> None:
        self.do("say", stream, count)

    @rule(stream=st.integers(0, 1), count=st.integers(1, 3), torn=st.sampled_from([0, 30, 500, 5000]))
    def say_and_lose_power(self, stream: int, count: int, torn: int) -> None:
        self.do("say", stream, count)
        self.do("power_loss", torn)

    @rule()
    def kill(self) -> None:
        self.do("kill")

    @rule(torn=st.sampled_from([0, 30, 500, 5000]))
    def power_loss(self, torn: int) -> None:
        self.do("power_loss", torn)

    @rule(is_full=st.integers(0, 1))
    def full(self, is_full: int) -> None:
        self.do("full", is_full)

    @rule()
    def freeze(self) -> None:
        self.do("freeze")

    @rule()
    def wake(self) -> None:
        self.do("wake")

    @rule()
    def cut(self) -> None:
        self.do("cut")

    @rule()
    def mute(self) -> None:
        self.do("mute")

    @rule()
    def ingress_dies(self) -> None:
        self.do("ingress_dies")

    @rule(requests=st.sampled_from([0, 10, 50]), answers=st.sampled_from([0, 10, 50]))
    def kafka(self, requests: int, answers: int) -> None:
        self.do("kafka", requests, answers)

    @rule(seconds=st.sampled_from([1, 1, 8]))
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


def explore(journal: type[SteppedJournal] = SteppedJournal, examples: int = EXAMPLES) -> None:
    """Runs the machine, with a mistaken journal perhaps. Raises what it found; of the real code the smallest story of it."""
    phases = [Phase.generate, Phase.shrink] if journal is SteppedJournal else [Phase.generate]

    class Machine(EdgeMachine):
        pass

    Machine.journal = journal
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
