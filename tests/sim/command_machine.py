"""The Hypothesis machine over command workers: what may happen to them, in any order."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.sim.commands import APIS, KINDS, WORKERS_AT_ONCE, CommandRun, quiet
from tests.sim.draws import by_the_seed_alone
from tests.sim.replay import Found, shortened

EXAMPLES: Final = int(os.environ.get("FW_SIM_EXAMPLES", "30"))
STEPS: Final = 20

IN_A_TRANSACTION: Final = ("AddPartitionsToTxn", "Produce", "TxnOffsetCommit", "EndTxn")
TAKING_OVER: Final = ("InitProducerId", "OffsetFetch", "ListOffsets", "Fetch")

which = st.integers(0, 5)
kinds = st.sampled_from(KINDS)
words = st.integers(0, 2)
moments = st.sampled_from(["before", "after"])


class CommandMachine(RuleBasedStateMachine):
    """Steps are `CommandRun`'s; whatever breaks is told in words, with the command that shows it again."""

    mutant: str | None = None

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.run = CommandRun(seed, self.mutant)
        self.has_failed = False
        self.do("start")
        self.do("time", 4.0)
        for tenant in (0, 2):
            self.do("send", tenant, "register", 0, 0, 0)
        self.do("send", 0, "create", 0, 0, 0)

    def do(self, *step: str | int | float) -> None:
        try:
            with quiet():
                self.run.do(*step)
        except AssertionError as error:
            self._failed(error)

    def _failed(self, error: AssertionError) -> None:
        self.has_failed = True
        raise Found(self.run.program(), self.run.story, error) from error

    @rule()
    def start(self) -> None:
        self.do("start")

    @rule(n=which)
    def kill(self, n: int) -> None:
        self.do("kill", n)

    @rule(n=which)
    def stop(self, n: int) -> None:
        self.do("stop", n)

    @rule(n=which)
    def freeze(self, n: int) -> None:
        self.do("freeze", n)

    @rule(n=which)
    def wake(self, n: int) -> None:
        self.do("wake", n)

    @rule(
        n=which,
        api=st.sampled_from(sorted(APIS)),
        moment=moments,
        action=st.sampled_from(["freeze", "kill", "lose"]),
    )
    def trap(self, n: int, api: str, moment: str, action: str) -> None:
        self.do("trap", n, api, moment, action)

    @rule(
        api=st.sampled_from(IN_A_TRANSACTION), moment=moments, action=st.sampled_from(["freeze", "kill"]), kind=kinds, word=words
    )
    def hit_in_a_transaction(self, api: str, moment: str, action: str, kind: str, word: int) -> None:
        """Whoever handles the next command is struck in the midst of it, and another takes over."""
        self.do("start")
        self.trap_all(api, moment, action)
        self.do("send", 0, kind, 0, word, 0)
        self.do("time", 1.0)
        self.do("untrap")
        self.do("start")
        self.do("time", 12.0)

    @rule(
        api=st.sampled_from(TAKING_OVER),
        moment=moments,
        first=st.sampled_from(IN_A_TRANSACTION),
        kind=kinds,
        word=words,
        is_quick=st.booleans(),
    )
    def meet_while_taking_over(self, api: str, moment: str, first: str, kind: str, word: int, is_quick: bool) -> None:
        """One is frozen in the midst of a transaction, the next while it takes over; the first goes on, then the second.

        Quick: the second goes on before the group has missed it.
        """
        self.do("start")
        self.trap_all(first, "before", "freeze")
        self.do("send", 0, kind, 0, word, 0)
        self.do("time", 1.0)
        self.do("untrap")
        self.do("start")
        self.trap_all(api, moment, "freeze")
        self.do("time", 2.0 if is_quick else 12.0)
        self.do("wake", 0)
        self.do("time", 0.1 if is_quick else 1.0)
        for _ in range(WORKERS_AT_ONCE):
            self.do("wake", 0)
        self.do("untrap")
        self.do("time", 4.0)

    def trap_all(self, api: str, moment: str, action: str) -> None:
        for n in range(WORKERS_AT_ONCE):
            self.do("trap", n, api, moment, action)

    @rule(n=which, minutes=st.sampled_from([-20, -1, 1, 20]))
    def skew(self, n: int, minutes: int) -> None:
        self.do("skew", n, minutes)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1.0, 4.0, 12.0, 35.0]))
    def time(self, seconds: float) -> None:
        self.do("time", seconds)

    @rule(lost=st.sampled_from([0.0, 0.05, 0.3]), unanswered=st.sampled_from([0.0, 0.05, 0.3]), late=st.sampled_from([0.0, 0.1]))
    def faults(self, lost: float, unanswered: float, late: float) -> None:
        self.do("faults", lost, unanswered, late)

    @rule(seconds=st.sampled_from([0.1, 5.0]))
    def restart(self, seconds: float) -> None:
        self.do("restart", seconds)

    @rule()
    def expire(self) -> None:
        self.do("expire")

    @rule(
        tenant=st.integers(0, 2),
        kind=kinds,
        stream=st.integers(0, 1),
        word=words,
        minutes=st.sampled_from([0, 0, 0, 0, 10, -10, 60 * 30, -60 * 30]),
    )
    def send(self, tenant: int, kind: str, stream: int, word: int, minutes: int) -> None:
        self.do("send", tenant, kind, stream, word, minutes)

    @rule(wishes=st.lists(st.tuples(st.integers(0, 2), kinds, st.integers(0, 2), words), min_size=2, max_size=8))
    def send_many(self, wishes: list[tuple[int, str, int, int]]) -> None:
        for tenant, kind, stream, word in wishes:
            self.do("send", tenant, kind, stream, word, 0)

    @rule(n=st.integers(0, 20), late=st.integers(0, 1))
    def resend(self, n: int, late: int) -> None:
        self.do("resend", n, late)

    @rule(n=st.integers(0, 20))
    def reuse(self, n: int) -> None:
        self.do("reuse", n)

    @rule(tenant=st.integers(0, 2), what=st.integers(0, 2))
    def garbage(self, tenant: int, what: int) -> None:
        self.do("garbage", tenant, what)

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


def explore(mutant: str | None = None, examples: int = EXAMPLES, *, shortens: bool = True) -> None:
    """Runs the machine, on mutated ground perhaps. Raises Found: what it found, in as few steps as can be."""

    class Machine(CommandMachine):
        pass

    Machine.mutant = mutant
    try:
        with by_the_seed_alone():
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    derandomize=True,
                    database=None,
                    deadline=None,
                    max_examples=examples,
                    stateful_step_count=STEPS,
                    phases=[Phase.generate],  # the steps are made fewer here, in seconds
                    suppress_health_check=list(HealthCheck),
                    print_blob=False,
                    verbosity=Verbosity.quiet,
                ),
            )
    except Found as found:
        raise (shortened(found) if shortens else found) from None
