"""`fw demo` against a running platform: every figure of every scenario is the recording's."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.platform import FW, Platform, until

DEMO_SECONDS = 600


def demo(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [FW, "demo", "--data-dir", str(platform.data_dir), "--speed", "15", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEMO_SECONDS, check=False)


def test_every_scenario_ends_with_the_figures_of_its_recording(platform: Platform) -> None:
    done = demo(platform, "--scenario", "all", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    outcome = json.loads(line)
    assert outcome["equal"] is True
    first, second, third, fourth = outcome["scenarios"]
    assert [(v["seconds"], v["up_bytes"]) for v in first["found"]["viewings"]] == [(14, 872971), (17, 1263288), (22, 1395155)]
    assert first["found"]["ingests"] == 1
    assert (second["found"]["ingests"], second["refusals"]) == (2, ["DUPLICATE_INGEST"])
    assert len(third["found"]["push_bytes"]) == 5
    assert len(third["found"]["files"]) == 3
    assert fourth["refusals"] == ["UNKNOWN_KEY"] * 4
    for scenario in outcome["scenarios"]:
        assert scenario["events"][0] == "StreamSnapshot"
        assert "StreamWentLive" in scenario["events"]


def test_a_person_sees_the_events_the_totals_and_where_to_ask(platform: Platform) -> None:
    done = demo(platform, "--scenario", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    for words in ("the stream is IDLE", "ingest started over RTMP", "buffer FULL", "the stream is LIVE", "1,395,155 bytes"):
        assert words in said
    assert said.count("viewer joined") == 3
    assert said.count("equal") >= 5
    assert "query WhoWatched" in said
    assert f"Try them in the browser: {platform.up['graphql']}" in said


@pytest.mark.parametrize("killed", ["gateway", "edge", "ingress", "commands"])
def test_a_process_that_is_killed_meanwhile_changes_no_figure(platform: Platform, killed: str) -> None:
    command = [FW, "demo", "--data-dir", str(platform.data_dir), "--speed", "6", "--scenario", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        said = []
        for line in running.stdout:
            said.append(line)
            if "viewer joined" in line:
                break
        pid = platform.status()["processes"][killed]["pid"]
        os.kill(pid, signal.SIGKILL)
        said += running.stdout  # not `communicate`: it would pass over the lines that were read ahead
    text = "".join(said)
    assert running.returncode == 0, text
    assert "different" not in text
    # every event once, in spite of the cut
    assert (text.count("viewer joined"), text.count("viewer left"), text.count("the stream is offline")) == (3, 3, 1), text
    until(lambda: platform.status()["processes"][killed]["pid"] not in (0, pid), 60, f"{killed} to be back")
