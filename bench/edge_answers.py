"""How long a blocking trigger waits for its answer, with 100,000 streams in the policy: real HTTP, one new connection each.

The agent is a process of its own with the journal on disk; what an answer changes is on stable storage before it is given.
Baseline: the same handler with an empty table, which knows no key and no stream. Each kind of question is asked one at a time, as
one publisher or viewer does, and the slowest 1 % are shown. Then the time from a change of the policy to the media server's API.
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
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

import jwt
import uvloop
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.trigger_load import OneTrigger
from edge_agent.agent import Agent
from edge_agent.http import Doors
from edge_agent.journal import Journal
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.running import settle_memory
from edge_agent.service import Service
from edge_agent.trigger import Trigger
from edge_agent.turn import Node
from edge_agent.uplink import Uplink
from streams.generated import (
    PlaybackKind,
    PlaybackPolicy,
    Policy,
    SigningAlgorithm,
    SigningKey,
    StreamKey,
    StreamPolicy,
    TenantPolicy,
    TenantStanding,
)
from streams.ids import OPERATOR_TENANT
from streams.privacy.envelope import DayKeys
from streams.telemetry import configure_logs

STREAMS: Final = 100_000
TENANTS: Final = 1_000
TARGET_MS: Final = 5.0
PARTS: Final = 10
KEY: Final = derive_private_key(4711, SECP256R1())


def policies() -> Iterator[Policy]:
    public = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for n in range(TENANTS):
        signing = (SigningKey("k1", SigningAlgorithm.ES256, public),)
        yield TenantPolicy(UUID(int=1 + n), 1, TenantStanding.ACTIVE, 100, signing)
    protected = PlaybackPolicy(kind=PlaybackKind.JWT, blocked_countries=("XX",), max_viewers=1_000_000)
    for n in range(STREAMS):
        key = StreamKey(f"{n:08d}", sha256(stream_key(n).encode()).digest())
        yield StreamPolicy(
            UUID(int=1 + n % TENANTS),
            UUID(int=1 << 64 | n),
            f"s{n}",
            f"pb{n}",
            (key,),
            False,
            1,
            playback=protected if n % 2 else None,
        )


def stream_key(n: int) -> str:
    return f"sk_{n:08d}_0123456789abcdefghijkl"


async def serve(directory: Path, *, is_empty: bool) -> None:
    """An agent without an ingress. Prints its port; ends with SIGTERM."""
    configure_logs("edge_agent", "error")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    journal = Journal(directory / "journal.db")
    journal.open()
    state, node = NodeState(), Node.called("edge-1", OPERATOR_TENANT)
    today = DayKeys(datetime.now(UTC).date(), X25519PrivateKey.generate().public_key().public_bytes_raw(), bytes(32))
    table = PolicyTable([] if is_empty else policies(), is_known=True)
    agent = Agent(node, table, state, lambda _: "NL", Sealer(state, [today]))
    settle_memory()
    doors = Doors(Service(agent, journal, Uplink(journal, table, "127.0.0.1:1", lambda: ""), is_traced=False))
    print(await doors.listen("127.0.0.1", 0), flush=True)
    await stop.wait()
    await doors.close()
    journal.close()


def request(trigger: str, body: str, number: int) -> bytes:
    return (
        f"POST /trigger/{trigger} HTTP/1.1\r\nAccept: */*\r\nContent-Length: {len(body)}\r\nContent-Type: text/plain\r\n"
        "Host: 127.0.0.1:18007\r\nUser-Agent: MistServer/3.10\r\nX-Attempt: 1\r\nX-Instance: bkTJOIeegaccMnXY\r\n"
        f"X-PID: {number}\r\nX-Trigger: {trigger}\r\nX-Trigger-UUID: {trigger}{number}\r\n"
        f"X-Trigger-UnixMillis: {1795173999227 + number}\r\n\r\n{body}"
    ).encode()


def spread(n: int) -> int:
    """Another stream each time, all over the table."""
    return n * 7919 % STREAMS


def play_rewrite(n: int) -> bytes:
    return request("PLAY_REWRITE", f"pb{spread(n)}\n127.0.1.1\nHLS\nhttp://127.0.0.1:18080/hls/pb/index.m3u8", n)


def push_rewrite(n: int) -> bytes:
    key = stream_key(spread(n))
    return request("PUSH_REWRITE", f"rtmp://127.0.0.1:1935/live/{key}\n127.0.0.1\n{key}", n)


def viewer(n: int, stream: int, token: str) -> bytes:
    url = f"http://127.0.0.1:18080/hls/live%2bs{stream}/index.m3u8"
    return request("USER_NEW", f"live+s{stream}\n127.0.1.1\n{token}\nHLS\n{url}\n{n:064x}\nfalse", n)


def public_viewer(n: int) -> bytes:
    return viewer(n, spread(n) & ~1, str(n))


def viewer_with_token(n: int) -> bytes:
    stream = spread(n) | 1
    token = jwt.encode({"sub": f"pb{stream}", "exp": 2**33, "n": n}, KEY, "ES256", headers={"kid": "k1"})
    return viewer(n, stream, token)


KINDS: Final[dict[str, tuple[Callable[[int], bytes], str]]] = {
    "PLAY_REWRITE": (play_rewrite, "a playback id becomes a name"),
    "PUSH_REWRITE": (push_rewrite, "a key becomes a stream"),
    "USER_NEW": (public_viewer, "a public stream"),
    "USER_NEW, JWT": (viewer_with_token, "a new ES256 token each time"),
}


async def waits(port: int, make: Callable[[int], bytes], count: int, first: int) -> list[float]:
    loop, taken = asyncio.get_running_loop(), list[float]()
    for n in range(first, first + count):
        sent = make(n)
        done: asyncio.Future[bytes] = loop.create_future()
        began = time.perf_counter()
        await loop.create_connection(lambda s=sent, d=done: OneTrigger(s, d), "127.0.0.1", port)  # type: ignore[misc]
        answer = await done
        taken.append(1000 * (time.perf_counter() - began))
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"unexpected answer: {answer!r}")
    return taken


@contextlib.contextmanager
def agent(directory: Path, *, is_empty: bool) -> Iterator[int]:
    mode = "--serve-empty" if is_empty else "--serve"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.edge_answers", mode, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def measured(count: int) -> dict[str, tuple[list[float], list[float]]]:
    """Ours and the baseline's, in turns, so that both see the same machine."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in KINDS}
    with (
        tempfile.TemporaryDirectory() as full,
        tempfile.TemporaryDirectory() as empty,
        agent(Path(full), is_empty=False) as ours,
        agent(Path(empty), is_empty=True) as baseline,
    ):
        for part in range(PARTS):
            for kind, (name, (make, _)) in enumerate(KINDS.items()):
                first = (part * len(KINDS) + kind) * count  # no trigger comes twice: it would be a retry
                for port, taken in ((ours, found[name][0]), (baseline, found[name][1])):
                    some = uvloop.run(waits(port, make, count // PARTS, first))
                    taken.extend(some if part else some[len(some) // 2 :])  # the first ones warm up
    return found


def decided(make: Callable[[int], bytes], table: PolicyTable, count: int) -> list[float]:
    """CPU milliseconds of each decision alone: no door, no disk, and no other process in the way."""
    today = DayKeys(datetime.now(UTC).date(), X25519PrivateKey.generate().public_key().public_bytes_raw(), bytes(32))
    state, node, taken = NodeState(), Node.called("edge-1", OPERATOR_TENANT), list[float]()
    agent_ = Agent(node, table, state, lambda _: "NL", Sealer(state, [today]))
    for n in range(count):
        head, _, body = make(n).partition(b"\r\n\r\n")
        name = head.split(b" ")[1].rpartition(b"/")[2].decode()
        trigger = Trigger(name, body, f"{name}{n}", "Instance", n, 1795173999227 + n)
        began = time.thread_time()
        outcome = agent_.handle(trigger, time.time_ns() // 1_000_000)
        taken.append(1000 * (time.thread_time() - began))
        if outcome.is_invalid:
            raise RuntimeError(f"{name} is not understood")
    return taken[count // 10 :]


def share(taken: list[float], part: float) -> float:
    return round(sorted(taken)[int(len(taken) * part)], 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON per figure")
    parser.add_argument("--count", type=int, default=2000, help="triggers of each kind")
    parser.add_argument("--serve", metavar="DIRECTORY", help=argparse.SUPPRESS)
    parser.add_argument("--serve-empty", metavar="DIRECTORY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if directory := options.serve or options.serve_empty:
        uvloop.run(serve(Path(directory), is_empty=bool(options.serve_empty)))
        return 0
    found = measured(options.count)
    table, nothing = PolicyTable(policies(), is_known=True), PolicyTable([], is_known=True)
    settle_memory()
    for name, (make, what) in KINDS.items():
        ours, baseline = decided(make, table, options.count), decided(make, nothing, options.count)
        figure: dict[str, object] = {
            "name": f"edge: CPU of the slowest 1 % of decisions on {name} ({what}), {STREAMS:,} streams known",
            "ours": share(ours, 0.99),
            "baseline": share(baseline, 0.99),
            "baseline_is": "the same with an empty table",
            "unit": "ms",
            "lower_is_better": True,
        }
        line = f"{figure['name']}: {figure['ours']} ms (empty table: {figure['baseline']} ms)"
        print(json.dumps(figure) if options.json else line)
    for name, (ours, baseline) in found.items():
        figure = {
            "name": f"edge: the slowest 1 % of answers to {name} ({KINDS[name][1]}), {STREAMS:,} streams known",
            "ours": share(ours, 0.99),
            "baseline": share(baseline, 0.99),
            "baseline_is": "the same handler with an empty table",
            "unit": "ms",
            "target": TARGET_MS,
            "lower_is_better": True,
        }
        medians = f"half of them within {share(ours, 0.5)} ms, with an empty table {share(baseline, 0.5)} ms"
        line = f"{figure['name']}: {figure['ours']} ms (empty table: {figure['baseline']} ms; {medians})"
        print(json.dumps(figure) if options.json else line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
