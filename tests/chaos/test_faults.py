"""What `fw chaos` does to the platform is what it says: cuts cut, limits limit, a seed is a schedule, a ledger is on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from infra.chaos import disk
from infra.chaos.faults import KINDS, schedule
from infra.chaos.ledger import Heard, Ledger, Owed, State
from infra.chaos.proxy import Proxy
from infra.chaos.recovery import parsed
from infra.embedded.ports import free_ports
from tests.platform import until

PARTS = ["commands", "edge", "gateway", "kafka", "postgres"]


def test_the_same_seed_is_the_same_schedule() -> None:
    assert schedule(7, PARTS, ["kafka"], KINDS, 20) == schedule(7, PARTS, ["kafka"], KINDS, 20)
    assert schedule(7, PARTS, ["kafka"], KINDS, 20) != schedule(8, PARTS, ["kafka"], KINDS, 20)


@pytest.mark.parametrize("kills", [0, 3, 5, 12])
def test_every_part_is_killed_as_often_as_any_other(kills: int) -> None:
    times = Counter(f.part for f in schedule(1, PARTS, [], KINDS, kills) if f.kind == "kill")
    assert times.total() == kills
    counts = [times[part] for part in PARTS]
    assert max(counts) - min(counts) <= 1


def test_what_has_no_proxy_is_neither_cut_nor_slowed_down() -> None:
    planned = schedule(1, PARTS, [], KINDS, 200)
    assert not [f for f in planned if f.kind == "cut"]
    assert {f.part for f in planned if f.kind == "slow"} == {"disk"}
    assert {f.part for f in schedule(1, PARTS, ["kafka", "edge"], ["cut"], 200)} == {"kafka", "edge"}


async def test_a_proxy_passes_bytes_until_it_is_cut_and_again_when_it_is_healed() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data.upper())
            await writer.drain()
        writer.write(b".")  # the end of our side came through, and this side is still open
        writer.close()

    port, target = free_ports(2)
    server = await asyncio.start_server(shout, "127.0.0.1", target)
    async with server, Proxy("test", port, target) as proxy, asyncio.timeout(180):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"abc" * 100_000)
        assert await reader.readexactly(300_000) == b"ABC" * 100_000
        proxy.cut()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        proxy.heal()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"again")
        writer.write_eof()
        assert await reader.read() == b"AGAIN."
        writer.close()


WRITER = """
import sys
for line in sys.stdin:
    try:
        with open(sys.argv[1], "ab") as file:
            file.write(b"x" * 100_000)
    except OSError as error:
        print("refused", flush=True)
    else:
        print("written", flush=True)
"""


def test_a_full_disk_refuses_writes_of_a_running_process_and_then_has_room_again(tmp_path: Path) -> None:
    command = (sys.executable, "-c", WRITER, str(tmp_path / "file"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin
        assert process.stdout

        def write() -> str:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            return process.stdout.readline().strip()

        assert write() == "written"
        with disk.full(process.pid):
            assert write() == "refused"
        assert write() == "written"
        process.stdin.close()


async def test_a_slow_process_is_running_afterwards() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
    try:
        slowing = asyncio.create_task(disk.slow(process.pid, 0.5))
        found = psutil.Process(process.pid)
        async with asyncio.timeout(180):
            while found.status() != psutil.STATUS_STOPPED:  # another process
                await asyncio.sleep(0.01)
        await slowing
        until(lambda: found.status() != psutil.STATUS_STOPPED, 180, "the process to run again")
    finally:
        process.kill()
        await process.wait()


async def test_an_operation_is_on_the_disk_before_it_is_sent_and_unknown_until_it_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    owed = [Owed("ViewerLeft", {"seconds": 14})]
    with Ledger(file) as ledger, contextlib.closing(sqlite3.connect(file)) as other:
        numbers = await asyncio.gather(*(ledger.begin("trigger", "", "s", {"n": n}, owed) for n in range(50)))
        assert sorted(n for (n,) in other.execute("SELECT id FROM operation")) == sorted(numbers)
        assert {o.state for o in ledger.operations()} == {State.UNKNOWN}
        await asyncio.gather(
            ledger.answered(numbers[0], {"answer": "true"}), ledger.lost(numbers[1]), ledger.answered(numbers[2], {}, [])
        )
        await ledger.answered(numbers[0], {"answer": "true"})
        await ledger.heard(Heard("s", "ViewerLeft", "e", "c"))
    with Ledger(file) as again:
        found = {o.id: o for o in again.operations()}
        assert [found[n].state for n in numbers[:4]] == [State.ANSWERED, State.LOST, State.ANSWERED, State.UNKNOWN]
        assert [len(found[n].answers) for n in numbers[:4]] == [2, 0, 1, 0]
        assert [list(found[n].owed) for n in numbers[:3]] == [owed, owed, []]
        assert again.messages() == [Heard("s", "ViewerLeft", "e", "c")]


def test_positions_are_read_from_a_projections_metrics() -> None:
    text = (
        'fw_projection_lag_records{partition="3",projection="streams",topic="fw.facts"} 2.0\n'
        'fw_projection_next_offset{partition="3",projection="streams",topic="fw.facts"} 40.0\n'
        "fw_other_total 7.0\n"
    )
    assert parsed(text) == ({("fw.facts", 3): 40.0}, {("fw.facts", 3): 2.0})
