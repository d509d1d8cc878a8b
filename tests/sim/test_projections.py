"""Every projection's real fold and store, in the simulator: whatever is killed, frozen, lost or doubled, it is the clean fold."""

from __future__ import annotations

import pytest

from projections import PROJECTIONS
from streams.faust_batches.transport import LostEvents
from tests.sim.command_model import Wrong
from tests.sim.commands import quiet
from tests.sim.stores.__main__ import main
from tests.sim.stores.machine import explore
from tests.sim.stores.run import ProjectionRun, Step, replay, told
from tests.sim.stores.statements import BUILDS, OFFSETS
from tests.sim.test_mutants_projections import OFFSET_FIRST

STORY: tuple[Step, ...] = (
    ("start",),
    ("start",),
    ("decide", 0, "create", 0),
    ("decide", 0, "rename", 0),
    ("say", 0, "live", 0, 1),
    ("soil", 0, "cut", 0),
    ("say", 1, "zero byte", 1, 2),
    ("rebalance", 0),
    ("trap", 0, 3, "FROZEN"),
    ("trap", 1, 4, "ANSWER_LOST"),
    ("deliver", 0, 5),
    ("deliver", 1, 5),
    ("time", 6),
    ("rebalance", 1),
    ("deliver", 0, 5),
    ("postgres_dies", 1),
    ("wake", 0),
)


def played(name: str, seed: int) -> ProjectionRun:
    run = ProjectionRun(name, seed)
    with quiet():
        for step in STORY:
            run.do(*step)
        run.settle()
    return run


@pytest.mark.parametrize("name", PROJECTIONS)
def test_whatever_happens_it_is_the_clean_fold(name: str) -> None:
    explore(name)


@pytest.mark.parametrize("name", ["streams", "viewer_sessions"])
def test_the_same_seed_is_the_same_run(name: str) -> None:
    runs = [played(name, seed) for seed in (7, 7)]
    assert runs[0].digest() == runs[1].digest()
    for run in runs:
        run.end()


@pytest.mark.parametrize("name", ["streams", "samples"])
def test_a_worker_whose_position_retention_has_passed_dies_and_skips_nothing(name: str) -> None:
    run = ProjectionRun(name, 1)
    with quiet():
        run.do("start")
        for second in range(3):
            run.do("say", 0, "live" if name == "streams" else "samples", 0, second)
        run.do("rebalance", 0)
        run.do("deliver", 0, 1)
        [tp] = run.history.tps
        run.history.expire(tp, 2)
        before = run._rows()
        with pytest.raises(Wrong, match="LostEvents"):
            run.do("rebalance", 0)
        assert isinstance(run.workers[0].task.exception(), LostEvents)
        assert run._rows() == before
        assert run._positions() == {tp: 1}
        run.end()


def test_a_failure_tells_its_story_and_runs_again_with_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [("start",), ("say", 0, "live", 0, 1), ("rebalance", 0), ("trap", 0, 1, "KILLED_AFTER"), ("deliver", 0, 1)]
    run = ProjectionRun("streams", 3, OFFSET_FIRST)
    run.steps = list(steps)
    with quiet(), pytest.raises(Wrong) as caught:
        replay(run.program(), OFFSET_FIRST)
    [story] = caught.value.__notes__
    assert "worker 1: its UPDATE platform.projection_offset" in story
    assert "was applied, and it was killed before it heard so" in story
    command = story.rpartition("python -m tests.sim.stores ")[2]
    assert main(command.strip("'")) == 0  # the real code does it right
    assert "Nothing was wrong." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["streams", "viewer_sessions"])
def test_a_crash_of_postgres_takes_rows_and_positions_and_never_a_build(name: str) -> None:
    run = ProjectionRun(name, 1)
    with quiet():
        run.do("say", 0, "joined" if name == "viewer_sessions" else "live", 0, 1)
        run.do("start")
        run.do("rebalance", 0)
        run.do("deliver", 0, 5)
        heap, before = run.postgres.heap, set(run.postgres.heap.tables[OFFSETS])
        run.do("postgres_dies", 9)
        assert before > set(heap.tables[OFFSETS]), told(run)
        assert list(heap.tables[BUILDS]) == [(name, 1)], told(run)
        run.settle()
    run.end()
