"""A short `fw chaos`: the real processes under load, each kind killed once, some frozen or cut off; nothing is wrong.

`make chaos` is the long one. The schedule is fixed by its seed; what happens at which moment is not, and need not be.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.up import fw

PARTS = (
    "kafka",
    "postgres",
    "clickhouse",
    "commands",
    "ingress",
    "edge",
    "gateway",
    "projections-streams",
    "projections-ingests",
)


@pytest.mark.timeout(1800)  # two minutes, and ten times that on a machine that has more to do
def test_nothing_is_wrong_after_every_kind_of_process_was_killed(tmp_path: Path) -> None:
    options = ("--seed", "106", "--kills", str(len(PARTS)), "--parts", ",".join(PARTS), "--faults", "kill,stop,cut")
    done = fw("chaos", *options, "--json", "--keep", "--data-dir", str(tmp_path / "data"), timeout=1500)
    assert done.returncode == 0, done.stderr[-8000:]
    report = json.loads(done.stdout)
    assert report["good"]
    assert set(report["wrong"].values()) == {0}
    # and it was no idle platform that nothing happened to
    assert set(report["recovery"]) == set(PARTS)
    assert report["faults"]["kill"] == len(PARTS)
    assert {kind for kind, states in report["operations"].items() if states.get("answered")} == {"command", "trigger", "sample"}
    assert report["messages"] > 0
    assert report["repeated_answers"] > 0


def test_a_fault_that_does_not_exist_is_named() -> None:
    done = fw("chaos", "--faults", "kill,flood")
    assert done.returncode != 0
    assert "flood" in done.stderr
