"""The real command worker, hurt in every way that the machine knows; FW_SIM_EXAMPLES says how often."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys

import pytest

from tests.sim.command_machine import explore
from tests.sim.command_mutants import MUTANTS, Mutated
from tests.sim.commands import CommandRun, quiet
from tests.sim.producer import SimProducer
from tests.sim.replay import Found, replay

BUSY = """[11,null,["start"],["start"],["time",4],["send",0,"register",0,0,0],["send",2,"register",0,0,0],["faults",0.1,0.1,0.1],
["send",0,"create",0,1,0],["trap",0,"EndTxn","after","freeze"],["send",2,"create",1,2,0],["time",12],["restart",3],
["resend",1,1],["send",1,"rename",0,1,0],["wake",0],["start"],["time",4]]"""


def test_whatever_happens_to_workers_each_command_takes_effect_once() -> None:
    explore()


def test_one_seed_is_one_run_byte_for_byte_in_any_process() -> None:
    here = [replay(BUSY) for _ in range(2)]
    assert here[0].story == here[1].story
    assert here[0].digest() == here[1].digest()
    env = {**os.environ, "PYTHONHASHSEED": "4711"}
    there = subprocess.run([sys.executable, "-m", "tests.sim", BUSY], env=env, capture_output=True, text=True, check=True)
    assert there.stdout.splitlines() == [*here[0].story, f"Nothing is wrong. The logs: {here[0].digest()}."]
    assert replay(BUSY.replace("[11,", "[12,", 1)).digest() != here[0].digest()


def test_a_failure_is_told_in_words_and_shown_again_by_the_command_that_it_prints() -> None:
    with pytest.raises(Found) as caught:
        explore("no fencing")
    said = str(caught.value)
    assert "worker 1 starts" in said
    assert re.search(r"(command \d+ is sent: \w+ by tenant \d|garbage is sent to the partition of tenant \d)", said)
    assert len(said.splitlines()) < 25
    command = said.splitlines()[-1].strip()
    assert command == f"python -m tests.sim '{caught.value.program}'"
    again = subprocess.run([sys.executable, "-m", "tests.sim", caught.value.program], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout.strip()) == (1, said)


def test_a_worker_that_is_left_alone_decides_at_once() -> None:
    """The oracle can be satisfied, and what it looks at is there: four commands, two of them refused."""
    run = CommandRun(1)
    with quiet():
        for step in (["start"], ["time", 4], ["send", 0, "register", 0, 0, 0], ["send", 0, "create", 0, 1, 0]):
            run.do(*step)
        run.do("send", 1, "create", 0, 1, 0)  # of a tenant that nobody registered
        run.do("reuse", 1)
        run.do("time", 1)
        run.settle()
        decisions = [entry for log in run.sim.broker.topics[run.topics.decisions.name] for entry in log.read()]
        run.end()
    assert len(decisions) == 2 + 1 + 4


class _StopsLate(SimProducer):
    """As aiokafka's clients do when their connection breaks at a bad moment."""

    async def stop(self) -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)


class StopsLate(Mutated):
    def transactional_producer(self, transactional_id: str) -> SimProducer:
        return _StopsLate(self.sim.network, self.sim.broker, transactional_id)


def test_a_partition_does_not_wait_for_a_client_that_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MUTANTS, "stops late", StopsLate)
    run = CommandRun(1, "stops late")
    with quiet():
        for step in (
            ["start"],
            ["time", 4],
            ["start"],
            ["time", 20],
            ["kill", 1],
            ["send", 0, "register", 0, 0, 0],
            ["time", 40],
        ):
            run.do(*step)  # the first gives back what it has, the second dies, the first must take over
        decisions = [entry for log in run.sim.broker.topics[run.topics.decisions.name] for entry in log.read()]
        run.settle()
        run.end()
    assert decisions, run.story
