"""`fw up` of the whole platform: every process of ours dies once, and only it is started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from infra.supervisor.leftovers import marked
from infra.supervisor.memory import proportional_bytes
from projections import PROJECTIONS
from tests.up import Up, eventually, fw, up

MEMORY_BYTES = 2 << 30
KILLED = (
    "commands",
    "reactors",
    "policy",
    "ingress",
    "gateway",
    "edge",
    "projections-streams",
    "projections-samples",
)  # one of each kind
OURS = (
    "commands",
    "reactors",
    "archive",
    "policy",
    "ingress",
    "gateway",
    "edge",
    *(f"projections-{name}" for name in PROJECTIONS),
)


@pytest.fixture(scope="module")
def platform_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("everything")) as running:
        yield running


def test_everything_is_there_and_has_metrics(platform_up: Up) -> None:
    processes = platform_up.status()["processes"]
    assert set(processes) == {"kafka", "postgres", "clickhouse", *OURS}
    for name in OURS:
        answer = httpx.get(str(processes[name]["metrics"]))
        assert answer.status_code == 200
        assert "process_resident_memory_bytes" in answer.text, name
    assert fw("doctor", "--data-dir", str(platform_up.data_dir)).returncode == 0


def test_memory_is_within_the_budget(platform_up: Up) -> None:
    assert 0 < proportional_bytes(platform_up.process.pid) < MEMORY_BYTES  # with everything that it started


@pytest.mark.parametrize("part", KILLED)
def test_a_killed_process_is_restarted_alone(platform_up: Up, part: str) -> None:
    before = platform_up.pids()
    seen = platform_up.log.read_text().count(f"{part} is ready again")
    os.kill(before[part], signal.SIGKILL)
    eventually(f"{part} is ready again", lambda: platform_up.log.read_text().count(f"{part} is ready again") > seen, 60)
    after = platform_up.pids()
    assert {name for name in before if before[name] != after[name]} == {part}
    assert psutil.pid_exists(after[part])


def test_it_stops_cleanly(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        assert running.stop() == 0
        assert marked(tmp_path) == []
        for name in OURS:
            said = (tmp_path / "logs" / f"{name}.log").read_text()
            assert "Traceback" not in said, f"{name}: {said[-2000:]}"
