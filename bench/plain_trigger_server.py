"""What the edge agent is compared with: a plain Starlette handler under uvicorn that stores a trigger in SQLite, in groups.

It does what is promised of a durable trigger and no more: the body is in a committed row (WAL, synchronous=FULL) before the 200;
requests that come meanwhile share the next commit. No parsing, no state, no facts, no retries. Prints its port.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import sqlite3
import sys
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

Waiting = tuple[str, str, bytes, "asyncio.Future[None]"]


def write(file: Path, waiting: queue.SimpleQueue[Waiting], loop: asyncio.AbstractEventLoop) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE triggers (id INTEGER PRIMARY KEY, uuid TEXT, name TEXT, body BLOB)")
    while True:
        group = [waiting.get()]
        while not waiting.empty():
            group.append(waiting.get())
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO triggers (uuid, name, body) VALUES (?, ?, ?)", [row[:3] for row in group])
        connection.execute("COMMIT")
        loop.call_soon_threadsafe(settle, [row[3] for row in group])


def settle(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


async def main(directory: Path) -> None:
    loop, waiting = asyncio.get_running_loop(), queue.SimpleQueue[Waiting]()
    threading.Thread(target=write, args=(directory / "triggers.db", waiting, loop), daemon=True).start()

    async def trigger(request: Request) -> PlainTextResponse:
        future: asyncio.Future[None] = loop.create_future()
        name = request.path_params["name"]
        waiting.put((request.headers["x-trigger-uuid"], name, await request.body(), future))
        await future
        return PlainTextResponse("true")

    app = Starlette(routes=[Route("/trigger/{name}", trigger, methods=["POST"])])
    config = uvicorn.Config(app, log_level="warning", access_log=False, loop="uvloop", http="httptools", lifespan="off")
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listening.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(Path(sys.argv[1])))
