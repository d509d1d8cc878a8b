"""The simulator's loop: virtual time, seeded order, processes that freeze and die."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.sim.loop import SimLoop, Stuck


@contextlib.contextmanager
def loop(seed: int = 0) -> Iterator[SimLoop]:
    made = SimLoop(seed)
    try:
        yield made
    finally:
        made.end()


async def ticks(said: list[str], name: str, n: int = 5) -> None:
    for i in range(n):
        await asyncio.sleep(1)
        said.append(f"{name}{i}")


def test_time_passes_without_waiting() -> None:
    with loop() as sim:
        began = time.monotonic()
        sim.run(asyncio.sleep(1_000_000))
        assert sim.time() == 1_000_000
        assert time.monotonic() - began < 60

        async def late() -> None:
            async with asyncio.timeout(10):
                await asyncio.sleep(20)

        with pytest.raises(TimeoutError):
            sim.run(late())
        assert sim.time() == 1_000_010


def test_the_seed_decides_the_order_between_processes_and_nothing_else_does() -> None:
    def run(seed: int) -> list[str]:
        said: list[str] = []
        with loop(seed) as sim:
            for name in "abc":
                sim.process(name).start(ticks(said, name))
            sim.run_for(10)
        return said

    assert run(1) == run(1)
    assert len({tuple(run(seed)) for seed in range(10)}) > 5
    for said in map(run, range(10)):
        assert [s for s in said if s[0] == "a"] == ["a0", "a1", "a2", "a3", "a4"]


def test_a_frozen_process_goes_on_where_it_was_and_a_killed_one_never() -> None:
    said: list[str] = []

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            said.append("cleaned up")

    with loop() as sim:
        a, b = sim.process("a"), sim.process("b")
        a.start(ticks(said, "a"))
        b.start(cleans_up())
        sim.run_for(2.5)
        a.freeze()
        b.kill()
        sim.run_for(100)
        assert said == ["a0", "a1"]
        a.wake()
        sim.run_for(100)
        assert said == ["a0", "a1", "a2", "a3", "a4"]


def test_a_thread_is_a_step() -> None:
    with loop() as sim:
        assert sim.run(asyncio.to_thread(lambda: 7)) == 7


def test_waiting_for_what_cannot_come_is_said() -> None:
    with loop() as sim, pytest.raises(Stuck):
        sim.run_until(lambda: False, 5)
