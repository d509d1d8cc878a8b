"""The real erasure reactor: what was decided happens and is told once, whatever is killed, frozen, lost or restored."""

from __future__ import annotations

import pytest

from tests.sim.command_model import Wrong
from tests.sim.commands import quiet
from tests.sim.stores.__main__ import main
from tests.sim.stores.reactor import ReactorRun, Step, replay, told
from tests.sim.stores.reactor_machine import explore
from tests.sim.test_mutants_reactor import POSITION_FIRST

STORY: tuple[Step, ...] = (
    ("start",),
    ("time", 5),
    ("register", 0, 2, 0),
    ("register", 4, 1, 0),
    ("erase", 0),
    ("strike", 0, 3, "FROZEN"),
    ("time", 6),
    ("start",),
    ("kafka", 10, 10),
    ("register", 0, 1, 30),
    ("trap", 1, "after", "kill"),
    ("erase", 1),
    ("worker_dies",),
    ("time", 6),
    ("restored",),
    ("wake", 0),
)


def test_whatever_happens_each_erasure_takes_effect_once() -> None:
    explore()


def test_the_same_seed_is_the_same_run() -> None:
    digests = []
    for _ in range(2):
        run = ReactorRun(5)
        with quiet():
            for step in STORY:
                run.do(*step)
            run.settle()
            digests.append(run.digest())
            run.end()
    assert digests[0] == digests[1]
    assert "person 1" in digests[0]


def test_a_failure_tells_its_story_and_runs_again_with_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    run = ReactorRun(3, POSITION_FIRST)
    run.steps = [("start",), ("time", 5), ("register", 0, 1, 0), ("strike", 0, 2, "KILLED_AFTER"), ("erase", 0), ("time", 2)]
    with quiet(), pytest.raises(Wrong) as caught:
        replay(run.program(), POSITION_FIRST)
    [story] = caught.value.__notes__
    assert "erasure 1 is requested, of person 1" in story
    assert "and it was killed before it heard so" in story
    command = story.rpartition("python -m tests.sim.stores ")[2]
    assert main(command.strip("'")) == 0, told(run)  # the real code does it right
    assert "Nothing was wrong." in capsys.readouterr().out
    run.end()


@pytest.mark.parametrize("minutes", [20, -20])
def test_a_reactor_whose_clock_is_wrong_confirms_when_it_is_right_again(minutes: int) -> None:
    run = ReactorRun(1)
    with quiet():
        for step in (("start",), ("time", 5), ("skew", 0, minutes), ("register", 0, 1, 0), ("erase", 0), ("time", 70)):
            run.do(*step)
        assert all(position["next_offset"] == 0 for position in run.positions()) == (minutes > 0)  # it was refused
        run.settle()
    run.end()


def test_who_comes_back_after_an_erasure_is_not_erased_by_it_once_more() -> None:
    run = ReactorRun(1)
    with quiet():
        for step in (
            ("start",),
            ("time", 5),
            ("register", 0, 2, 0),
            ("erase", 0),
            ("time", 5),
            ("register", 0, 1, 0),
            ("restored",),
        ):
            run.do(*step)
        run.do("kill", 0)
        run.settle()
    run.end()
