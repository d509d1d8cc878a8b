"""`fw edge run` and `fw replay-recording`, as a person calls them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from infra.embedded.ports import free_ports
from streams.ingress.credentials import issue
from tests.edge_beside import with_a_policy
from tests.edge_node import KEY
from tests.edge_process import request
from tests.ingress import SECRET_KEY

FW = (sys.executable, "-c", "from infra.cli import main; main()")


async def fw(*arguments: str) -> tuple[int, str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FW_")}
    process = await asyncio.create_subprocess_exec(
        *FW, *arguments, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 180)
    return process.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def edge_run(state_dir: Path) -> AsyncIterator[int]:
    """An agent that once had a policy and is cut off since; gives its port."""
    await with_a_policy(state_dir)
    port = free_ports(1)[0]
    options = ("--node-id", "edge-9", "--listen", f"127.0.0.1:{port}", "--ingress", "127.0.0.1:1", "--state-dir", str(state_dir))
    with (state_dir / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*FW, "edge", "run", *options, stderr=log)
    try:
        async with asyncio.timeout(180):
            while True:
                assert process.returncode is None, (state_dir / "log").read_text()
                try:
                    if (await request(port, "GET", "/readyz"))[0] == 200:
                        break
                except OSError:
                    await asyncio.sleep(0.05)
        yield port
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 180) == 0
        assert KEY not in (state_dir / "log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_recording_is_replayed_and_summed_up(tmp_path: Path) -> None:
    async with edge_run(tmp_path / "edge") as port:
        call = ("replay-recording", "4-rejected-stream-key", "--edge", f"http://127.0.0.1:{port}", "--stream-key", KEY)
        status, out, err = await fw(*call, "--speed", "0", "--json")
        assert (status, err) == (0, "")
        summary = json.loads(out)
        assert summary["streams"] == {"live+cam1": "live+lobby"}
        assert summary["refused_publishers"] == 4
        assert summary["statuses"] == {"200": summary["triggers"]}
        status, out, err = await fw(*call, "--speed", "0", "--run-id", summary["run_id"])
        assert status == 0
        assert "live+cam1 is live+lobby" in out
        assert KEY not in out + err
        _, detail = await request(port, "GET", "/readyz")
        assert json.loads(detail)["ready"] is True
        metrics = (await request(port, "GET", "/metrics"))[1].decode()
        assert f'fw_edge_facts_total{{event="IngestRejected"}} {4.0}' in metrics  # the second run was a resend


async def test_what_goes_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    status, _, err = await fw("replay-recording", "no-such-recording", "--stream-key", "sk_x")
    assert status == 1
    assert "1-publisher-3-hls-viewers" in err
    (tmp_path / "broken.jsonl").write_text("{}\n")
    status, _, err = await fw("replay-recording", str(tmp_path / "broken.jsonl"), "--stream-key", "sk_x")
    assert status == 1
    assert "is not a recording" in err
    status, _, err = await fw("replay-recording", "4-rejected-stream-key", "--stream-key", "sk_x", "--run-id", "x")
    assert status == 2
    status, _, err = await fw("edge", "run", "--state-dir", str(tmp_path / "none"))
    assert status == 1
    assert "fw node credential" in err
    assert "Traceback" not in err


async def test_a_taken_port_and_a_foreign_name_are_told_together_or_apart(tmp_path: Path) -> None:
    (tmp_path / "credential").write_text(issue(SECRET_KEY, "edge-9", None))
    status, _, err = await fw("edge", "run", "--node-id", "edge-8", "--state-dir", str(tmp_path), "--listen", "nowhere")
    assert status == 1
    assert "edge-9" in err
    assert "FW_EDGE_LISTEN" in err
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    status, _, err = await fw("edge", "run", "--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{port}")
    server.close()
    assert status == 1
    assert "cannot start" in err
    assert "Traceback" not in err
