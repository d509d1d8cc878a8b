"""Tests of the tests: a command worker with a piece of its safety taken out is found out, in a bounded number of runs."""

from __future__ import annotations

import json

import pytest

from tests.sim.command_machine import explore
from tests.sim.command_mutants import MUTANTS
from tests.sim.replay import Found, replay

RUNS = 400
CALM = [
    ["start"],
    ["time", 4],
    ["send", 0, "register", 0, 0, 0],
    ["send", 0, "create", 0, 1, 0],
    ["time", 4],
    ["stop", 0],
    ["start"],
]


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_mutant_is_found(mutant: str) -> None:
    with pytest.raises(Found) as caught:
        explore(mutant, RUNS, shortens=False)
    assert "Wrong" in str(caught.value)


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_mutant_does_well_while_nothing_happens(mutant: str) -> None:
    """So what is found is the mistake, under the fault that it is about."""
    replay(json.dumps([1, mutant, *CALM]))
