"""Forked processes behave as started ones: arguments, environment, output, exit codes, signals."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from signal import Signals

import pytest

from infra.supervisor.children import Zygote, end

PROGRAM = """
import json, os, sys, time
if __name__ == "__main__":
    print(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ), "leader": os.getsid(0) == os.getpid()}), flush=True)
    match sys.argv[1]:
        case "exit": sys.exit(int(sys.argv[2]))
        case "raise": raise ValueError("boom")
        case "run": time.sleep(600)
"""


@pytest.fixture
async def zygote(tmp_path: Path) -> AsyncIterator[Zygote]:
    (tmp_path / "program.py").write_text(PROGRAM)
    made = Zygote(["program", "a_module_that_is_not_there"], {**os.environ, "PYTHONPATH": str(tmp_path)}, tmp_path / "zygote.log")
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize(("args", "code"), [(["exit", "0"], 0), (["exit", "7"], 7), (["raise"], 1)])
async def test_the_exit_code_is_the_programs(zygote: Zygote, tmp_path: Path, args: list[str], code: int) -> None:
    child = await zygote.fork("program", args, {"ONLY": "this"}, tmp_path / "log", "fw-test")
    assert await child.wait() == code
    said = (tmp_path / "log").read_text()
    assert '"env": {"ONLY": "this"}' in said
    assert '"leader": true' in said
    assert ("ValueError: boom" in said) == (args == ["raise"])


async def test_signals_end_a_child(zygote: Zygote, tmp_path: Path) -> None:
    child = await zygote.fork("program", ["run"], {}, tmp_path / "log", "fw-test")
    assert await end(child, [signal.SIGTERM], 10) == -Signals.SIGTERM


async def test_a_killed_zygote_takes_nobody_with_it(zygote: Zygote, tmp_path: Path) -> None:
    child = await zygote.fork("program", ["run"], {}, tmp_path / "log", "fw-test")
    assert zygote.pid is not None
    os.kill(zygote.pid, signal.SIGKILL)
    other = await zygote.fork("program", ["exit", "3"], {}, tmp_path / "log", "fw-test")
    assert await other.wait() == 3
    os.kill(child.pid, 0)
    await end(child, [signal.SIGTERM], 10)


async def test_what_is_forked_is_what_is_on_disk(zygote: Zygote, tmp_path: Path) -> None:
    child = await zygote.fork("program", ["run"], {}, tmp_path / "log", "fw-test")
    (tmp_path / "program.py").write_text(PROGRAM.replace("time.sleep(600)", "sys.exit(5)"))
    changed = await zygote.fork("program", ["run"], {}, tmp_path / "log", "fw-test")
    assert await changed.wait() == 5
    assert await end(child, [signal.SIGTERM], 10) is None  # whose parent is gone
