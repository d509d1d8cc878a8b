"""A process that used object storage ends as it was told to, whatever the library's threads are doing at that moment."""

import asyncio
import sys
from pathlib import Path

ROUNDS = 24
BUSY = "while True: pass"
SCRIPT = """
import asyncio, sys
from streams.archive.objects import Objects

async def use(objects):
    for name in "abc":
        await objects.put(name, b"x")
    assert [found async for found in objects.list()]
    for name in "abc":
        assert await objects.get(name) == b"x"

asyncio.run(use(Objects(sys.argv[1])))
"""


async def started(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", *arguments)


async def test_no_process_is_aborted_while_it_ends(tmp_path: Path) -> None:
    # the library's own coroutines abort one in four of these on a machine that has other work
    others = [await started(BUSY) for _ in range(3)]
    try:
        ends = [await (await started(SCRIPT, str(tmp_path / str(n)))).wait() for n in range(ROUNDS)]
    finally:
        for other in others:
            other.kill()
            await other.wait()
    assert ends == [0] * ROUNDS
