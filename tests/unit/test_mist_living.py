"""A publisher whose process runs is on the air, whatever the media server's statistics have lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.mist.living import lives
from streams.generated import IngestEnded
from tests.edge_node import KEY
from tests.mist.direct import Node


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One of the media server's name."""
    sleep = shutil.which("sleep")
    assert sleep
    shutil.copy(sleep, tmp_path / "MistOutRTMP")
    with subprocess.Popen([tmp_path / "MistOutRTMP", "600"]) as process:
        yield process
        process.kill()


def test_a_process_lives_until_it_is_killed(process: subprocess.Popen[bytes]) -> None:
    now_ms = round(time.time() * 1000)
    assert lives(str(process.pid), now_ms)
    assert not lives(str(process.pid), now_ms - 60_000), "a process that began later has only taken over the number"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as under a parent that does not ask
    assert not lives(str(process.pid), now_ms)
    process.wait()
    assert not lives(str(process.pid), now_ms)


def test_what_is_no_process_of_a_media_server_does_not_live() -> None:
    now_ms = round(time.time() * 1000)
    assert not lives(str(os.getpid()), now_ms)
    assert not lives("session I1234", now_ms)
    assert not lives("../self", now_ms)


def test_a_publisher_whose_session_process_was_killed_is_not_ended_while_its_process_runs() -> None:
    node = Node()
    publisher = node.mist.publish(KEY)
    node.advance(30)
    node.living = {str(publisher.pid)}
    node.mist.kill_session(publisher)
    node.mist.state.buffers.clear()  # and with it the statistics of its stream
    node.advance(120)
    assert not node.agent.said(IngestEnded)
    node.living = set()
    node.mist.state.publishers.clear()
    node.advance(60)
    [end] = [fact for fact in node.agent.said() if isinstance(fact, IngestEnded)]
    assert (end.end_reason, end.synthesized) == ("SOURCE_LOST", True)
