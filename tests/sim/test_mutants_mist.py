"""A test of the tests: the comparison with the API with one mistake. The generated media server must find each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from edge_agent.mist import presence
from edge_agent.mist.presence import Presence
from tests.sim.test_mist_adversary import Adversary

SEEDS, EXAMPLES = 10, 100
"""Examples of 50 steps within which a mistake has to be found, from so many beginnings: what Hypothesis tries hangs on what else
is imported, and one beginning may lead it to where nothing is for hundreds of examples."""
strange = Presence.strange

MISTAKES: dict[str, tuple[Any, str, Any]] = {
    "a session is found at its first look": (presence, "THERE_LOOKS", 1),
    "what is not listed is never ended": (Presence, "missed", lambda *_: None),
    "what was never told is never found": (Presence, "strange", lambda *_args, **_more: None),
    "a publisher who waits is one who is there": (Presence, "strange", lambda *args, is_steady: strange(*args, is_steady=False)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_adversary_finds_the_mistake(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(where, name, wrong)
    if name == "THERE_LOOKS":
        monkeypatch.setattr(presence, "THERE_MS", 0)
    bounded = settings(
        max_examples=EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError):
        explore(bounded)


def explore(bounded: settings) -> None:
    for number in range(SEEDS):
        beginning = seed(number)(type(f"Beginning{number}", (Adversary,), {}))
        run_state_machine_as_test(beginning, settings=bounded)
