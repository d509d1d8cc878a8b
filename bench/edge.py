"""Durable triggers per second that the edge agent accepts, one new TCP connection each, how long the slowest wait, and what one
costs in CPU time.

The agent is a process of its own; the triggers are viewers joining (one fact with a sealed address, one state row and one
remembered answer each), 32 connections at a time. Baseline: a plain Starlette + uvicorn handler that stores the body in SQLite in
groups (`plain_trigger_server.py`), measured in turns with it. No ingress is connected: this is a node that is cut off.
`python -m bench.edge --json` prints one line of JSON per figure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from uuid import UUID

import uvloop
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.trigger_load import CONNECTIONS, Figures, load
from edge_agent.agent import Agent
from edge_agent.http import Doors
from edge_agent.journal import Journal
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.running import settle_memory
from edge_agent.service import Service
from edge_agent.turn import Node
from edge_agent.uplink import Uplink
from streams.codec import decode_policy, encode_policy
from streams.generated import StreamKey, StreamPolicy
from streams.ids import OPERATOR_TENANT
from streams.privacy.envelope import DayKeys
from streams.telemetry import configure_logs

_LOBBY = StreamPolicy(UUID(int=1), UUID(int=2), "lobby", "pblobby", (StreamKey("abcd2345", b"\0" * 32),), False)
LOBBY = cast(StreamPolicy, decode_policy(encode_policy(_LOBBY)))  # as it comes from the platform
PLAIN = "plain Starlette + uvicorn + SQLite in groups"
ROUNDS = 3


async def serve(directory: Path) -> None:
    """An agent that knows one stream and no ingress. Prints its port; ends with SIGTERM."""
    configure_logs("edge_agent", "error")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    journal = Journal(directory / "journal.db")
    journal.open()
    state, node = NodeState(), Node.called("edge-1", OPERATOR_TENANT)
    today = DayKeys(datetime.now(UTC).date(), X25519PrivateKey.generate().public_key().public_bytes_raw(), bytes(32))
    agent = Agent(node, PolicyTable([LOBBY], is_known=True), state, lambda _: None, Sealer(state, [today]))
    uplink = Uplink(journal, agent.policy, "127.0.0.1:1", lambda: "")
    serving = Service(agent, journal, uplink, is_traced=False)
    doors = Doors(serving)
    loops = [asyncio.create_task(work) for work in (*uplink.tasks(), serving.keep_tidy())]
    print(await doors.listen("127.0.0.1", 0), flush=True)
    await stop.wait()
    await doors.close()
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
    journal.close()


@contextlib.contextmanager
def server(*command: str) -> Iterator[tuple[int, int]]:
    """A process that prints its port; gives (port, process id)."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait()


def measured(seconds: float, rounds: int) -> tuple[Sequence[Figures], Sequence[Figures]]:
    """(ours, plain) of some rounds, in turns, so that both see the same machine."""
    ours: list[Figures] = []
    plain: list[Figures] = []
    for _ in range(rounds):
        for found, command in ((ours, ("bench.edge", "--serve")), (plain, ("bench.plain_trigger_server",))):
            with tempfile.TemporaryDirectory() as directory, server("-m", *command, directory) as (port, pid):
                load(port, pid, seconds / 4)
                found.append(load(port, pid, seconds, first=1 << 20))
    return ours, plain


def best(of: Sequence[Figures], figure: Callable[[Figures], float], *, lowest: bool = False) -> float:
    return (min if lowest else max)(map(figure, of))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON per figure")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each of the two")
    parser.add_argument("--serve", metavar="DIRECTORY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        settle_memory()
        uvloop.run(serve(Path(options.serve)))
        return 0
    ours, plain = measured(options.seconds, options.rounds)
    rates, slowest, costs = (
        [best(of, key, lowest=lowest) for of in (ours, plain)]
        for key, lowest in (
            (lambda x: x.triggers_per_second, False),
            (lambda x: x.p99_ms, True),
            (lambda x: x.cpu_us_per_trigger, True),
        )
    )
    figures = [
        figure("edge: durable triggers accepted, one new TCP connection each", "triggers/s", rates, 5000),
        figure(f"edge: the slowest 1 % of them, {CONNECTIONS} at a time", "ms", slowest, 20, lower_is_better=True),
        figure("edge: CPU time of a durable trigger", "µs", costs, lower_is_better=True),
    ]
    for one in figures:
        line = f"{one['name']}: {one['ours']} {one['unit']} ({PLAIN}: {one['baseline']})"
        print(json.dumps(one) if options.json else line)
    return 0


def figure(
    name: str, unit: str, ours_and_plain: Sequence[float], target: float | None = None, *, lower_is_better: bool = False
) -> dict[str, object]:
    return {
        "name": name,
        "ours": round(ours_and_plain[0], 1),
        "baseline": round(ours_and_plain[1], 1),
        "baseline_is": PLAIN,
        "unit": unit,
        "target": target,
        "lower_is_better": lower_is_better,
    }


if __name__ == "__main__":
    raise SystemExit(main())
