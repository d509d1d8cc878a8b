"""What looking at the media server costs the edge agent: on an idle server, and for a look at 10,000 sessions.

The agent is a process of its own beside a modelled MistServer that nobody uses; its processor time is read from the system over a
quarter of a minute. Baseline: the same agent without the media server's API. `python -m bench.edge_idle --json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

from edge_agent.agent import Agent
from edge_agent.mist import clients, sight
from edge_agent.mist.truth import Truth
from edge_agent.node_state import NodeState
from edge_agent.policy import PolicyTable
from edge_agent.turn import Node
from infra.embedded.ports import free_ports
from streams.generated import StreamKey, StreamPolicy
from streams.ids import OPERATOR_TENANT
from streams.ingress.credentials import issue
from tests.edge_process import request
from tests.mist.model import MistServer

SECONDS = 15.0
SESSIONS = 10_000
LOOKS = 6
STREAMS = [
    StreamPolicy(
        OPERATOR_TENANT, Node.called(f"s{n}", OPERATOR_TENANT).uuid, f"s{n}", f"pb{n}", (StreamKey("abcd2345", b"\0"),), False
    )
    for n in range(100)
]


async def idle_share(api_url: str | None) -> float:
    """Share of a core that the agent takes, in percent, once it has set the server up."""
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as home:
        directory = Path(home)
        (directory / "credential").write_text(issue(bytes(32), "edge-1", None))
        env = {name: value for name, value in os.environ.items() if not name.startswith("FW_")}
        env |= {"FW_EDGE_STATE_DIR": home, "FW_EDGE_LISTEN": f"127.0.0.1:{port}", "FW_EDGE_INGRESS": "127.0.0.1:1"}
        env |= {"FW_LOG_LEVEL": "error"} | ({"FW_EDGE_MIST_API": api_url} if api_url else {})
        with subprocess.Popen([sys.executable, "-m", "edge_agent"], env=env, stderr=subprocess.DEVNULL) as agent:
            try:
                await _is_set_up(port, has_api=api_url is not None)
                process, began = psutil.Process(agent.pid), time.monotonic()
                before = sum(process.cpu_times()[:2])
                await asyncio.sleep(SECONDS)
                return 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
            finally:
                agent.terminate()


async def _is_set_up(port: int, *, has_api: bool) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                text = (await request(port, "GET", "/metrics"))[1].decode()
            except (OSError, EOFError):
                text = ""
            figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("fw_edge_") and " " in line)
            is_done = figures.get("fw_edge_mist_missing_steps") == "0.0" and float(figures["fw_edge_mist_steps_total"]) > 0
            if figures and (is_done or not has_api):
                return
            await asyncio.sleep(0.1)


def look_seconds() -> float:
    """Processor time of one look at 10,000 viewers whom everybody knows, its answer read from JSON."""
    agent = Agent(Node.called("edge-1", OPERATOR_TENANT), PolicyTable(STREAMS, is_known=True), NodeState(), lambda _: None)
    truth, best = Truth(), float("inf")
    for number in range(LOOKS):
        body, now = _answer(3 * number), 1_795_262_400_000 + 3000 * number
        began = time.process_time()
        seen = sight.read(msgspec.json.decode(body), 3000 * number, now)
        agent.observe(lambda turn, seen=seen: truth.compare(turn, seen, gap_ms=30_000), now, uuid=f"look {number}")  # type: ignore[misc]
        spent = time.process_time() - began
        best = min(best, spent) if len(agent.state.viewings) == SESSIONS and number > LOOKS - 2 else best
    return best


def _answer(seconds: int) -> bytes:
    rows = [
        [
            "203.0.113.7",
            f"live+s{n % 100}",
            "HLS",
            100 + seconds,
            90,
            5354,
            52_000 * (100 + seconds),
            227,
            78121,
            f"{n:064x}",
            0,
            0,
            0,
        ]
        for n in range(SESSIONS)
    ]
    listed = {"time": 1795175621, "fields": clients.Client.__struct_fields__, "data": rows}
    streams = {f"live+s{n}": {"status": "Online", "viewers": 100, "inputs": 1, "sourcepids": [n + 5]} for n in range(100)}
    config = {"iid": "bkTJOI}eegaccMn`", "version": "3.10 Generic_x86_64", "time": 1795175621}
    return msgspec.json.encode({"clients": listed, "active_streams": streams, "push_list": None, "config": config})


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    mist = MistServer()
    url = mist.listen()
    ours, baseline = asyncio.run(idle_share(url)), asyncio.run(idle_share(None))
    mist.close()
    figures = [
        {
            "name": "edge: processor on an idle server",
            "ours": round(ours, 2),
            "unit": "% of a core",
            "baseline": round(baseline, 2),
            "baseline_is": "without looking at the media server",
            "target": 1,
            "lower_is_better": True,
        },
        {"name": "edge: a look at 10,000 viewers", "ours": round(1000 * look_seconds(), 1), "unit": "ms of processor",
         "lower_is_better": True},
    ]  # fmt: skip
    for figure in figures:
        print(
            json.dumps(figure)
            if options.json
            else f"{figure['name']}: {figure['ours']} {figure['unit']} ({figure.get('baseline')})"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
