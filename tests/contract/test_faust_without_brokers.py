"""A Kafka that comes up names no broker at first. aiokafka's group member ends on that and Faust does not notice; we do.

The server here is no Kafka: it answers the two questions of a client that begins, as a Kafka does in that moment.
"""

from __future__ import annotations

import asyncio
import struct
import sys

from streams.faust_batches.app import EXIT_CRASHED

API_VERSIONS, METADATA = 18, 3
HIGHEST = {0: 3, 1: 4, 2: 1, METADATA: 1, 8: 2, 9: 1, 10: 0, 11: 2, 12: 1, 13: 1, 14: 1, API_VERSIONS: 0, 22: 0, 36: 0}


def answer(api: int) -> bytes:
    if api == API_VERSIONS:
        known = b"".join(struct.pack(">hhh", key, 0, highest) for key, highest in HIGHEST.items())
        return struct.pack(">hi", 0, len(HIGHEST)) + known
    return struct.pack(">iii", 0, -1, 0)  # metadata, version 1: no brokers, no controller, no topics


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            api, _, correlation = struct.unpack(">hhi", (await reader.readexactly(size))[:8])
            body = struct.pack(">i", correlation) + answer(api)
            writer.write(struct.pack(">i", len(body)) + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def test_a_worker_that_cannot_be_a_member_any_more_ends_instead_of_waiting_for_ever() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    command = (sys.executable, "-m", "tests.faust_reader", "--kafka", f"127.0.0.1:{port}", "--topic", "t", "--group", "g")
    async with server:
        process = await asyncio.create_subprocess_exec(*command, "--mode", "values", stderr=asyncio.subprocess.PIPE)
        try:
            _, said = await asyncio.wait_for(process.communicate(), 180)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert "no member of the group any more" in said.decode()
    assert process.returncode == EXIT_CRASHED
