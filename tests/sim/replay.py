"""Runs that were written down: played again, made shorter, told.

Invariant: what fails, fails again from its program alone, in any process.
"""

from __future__ import annotations

import json
from typing import Final

from tests.sim.commands import CommandRun, quiet

TRIES: Final = 120


class Found(AssertionError):
    """A run that breaks something. Its text is the story and the command that shows it again."""

    def __init__(self, program: str, story: list[str], why: AssertionError) -> None:
        told = "\n".join(story)
        super().__init__(f"{why!r}\n{told}\nTo see it again:\n  python -m tests.sim '{program}'")
        self.program = program


def replay(program: str) -> CommandRun:
    """The run that `CommandRun.program` wrote down, to its end. Raises Found."""
    seed, mutant, *steps = json.loads(program)
    run = CommandRun(seed, mutant)
    with quiet():
        try:
            for step in steps:
                run.do(*step)
            run.settle()
        except AssertionError as error:
            raise Found(program, run.story, error) from error
        finally:
            run.end()
    return run


def shortened(found: Found) -> Found:
    """The same failure (or another) with as few steps as leaving some out makes it."""
    seed, mutant, *steps = json.loads(found.program)
    tries, length = TRIES, len(steps) // 2
    while length and tries:
        at = 0
        while at < len(steps) and tries:
            tries -= 1
            fewer = steps[:at] + steps[at + length :]
            try:
                replay(json.dumps([seed, mutant, *fewer], separators=(",", ":")))
                at += length
            except Found as still:
                found, steps = still, fewer
        length //= 2
    return found
