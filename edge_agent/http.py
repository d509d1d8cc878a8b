"""The listening socket and its connections.

MistServer opens a connection for every trigger and has written all of it when we hear of the connection. Such a request is read,
answered and closed with plain system calls here, which costs less than a transport; anything else, byte by byte, too large or
broken, gets a Door (`door.py`) with what was read so far.

Invariant: both ways answer the same request with the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import time
from typing import Final

from edge_agent.door import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    REFUSAL_SECONDS,
    REQUEST_SECONDS,
    Application,
    Connections,
    Door,
    Reply,
    Request,
    answer_bytes,
    read_head,
)
from streams.listening import listen
from streams.settings import Listen
from streams.telemetry import log

__all__ = ["Doors", "Reply", "Request", "whole_request"]
ACCEPTED_AT_ONCE: Final = 12  # then the journal has its turn: it writes them while the next are handled
READ_BYTES: Final = 64 << 10
PAUSE_SECONDS: Final = 1.0  # where no more files may be opened
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PATHS: Final = b"/trigger/"

# The head as MistServer writes it, names sorted (CONTRACT section 1): one look instead of one for each field.
_HEAD_OF_MISTSERVER: Final = re.compile(
    rb"POST (/trigger/[A-Z_]{1,64}) HTTP/1\.1\r\nAccept: [^\r\n]*\r\nContent-Length: ([0-9]{1,7})\r\nContent-Type: [^\r\n]*\r\n"
    rb"Date: [^\r\n]*\r\nHost: [^\r\n]*\r\nUser-Agent: [^\r\n]*\r\nX-Attempt: ([0-9]{1,9})\r\n(?:X-Instance: ([^\r\n]*)\r\n)?"
    rb"(?:X-Name: [^\r\n]*\r\n)?X-PID: ([0-9]{1,18})\r\nX-Trigger: [^\r\n]*\r\nX-Trigger-UUID: ([^\r\n]*)\r\n"
    rb"X-Trigger-UnixMillis: ([0-9]{1,18})\r\nX-Version: [^\r\n]*\r\n\r\n"
)

logger = log(__name__)


class Quick:
    """A connection whose request came whole: it is answered once and closed."""

    __slots__ = ("_connections", "_file")

    def __init__(self, file: int, connections: Connections) -> None:
        self._file, self._connections = file, connections
        connections.add(self)

    def reply(self, status: int, body: bytes) -> None:
        """Answers and closes. A client that is gone already is no error; an answer fits into an empty send buffer."""
        self._connections.discard(self)
        with contextlib.suppress(OSError):
            os.write(self._file, answer_bytes(status, body))
        os.close(self._file)

    def abort_if_older(self, moment: float) -> None:
        """Its request is here: what it waits for is the answer."""


class Doors:
    """`listen`, and at the end `close`."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._connections = Connections()
        self._handing_over: set[asyncio.Task[object]] = set()

    async def listen(self, host: str, port: int) -> int:
        """Starts; gives the port. OSError: it is taken, or not ours to take."""
        self._loop = asyncio.get_running_loop()
        self._socket = listen(Listen(host, port))
        self._socket.setblocking(False)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):  # we hear of a connection when its first bytes are there
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(REQUEST_SECONDS))
        self._loop.add_reader(self._socket.fileno(), self._accept)
        self._sweeper = asyncio.create_task(self._sweep(), name="slow requests")
        return int(self._socket.getsockname()[1])

    async def close(self) -> None:
        """Takes no more connections, and gives those that are there a moment to be answered."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._sweeper.cancel()
        self._connections.abort_older(float("inf"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFUSAL_SECONDS):
                await self._connections.none_open.wait()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                # `accept` makes an object that costs more than all else here
                file, _ = self._socket._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it was there, and is not any more
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                logger.error("no more connections can be taken for now", problem=str(error))
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            self._serve(file)

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _serve(self, file: int) -> None:
        os.set_blocking(file, False)
        try:
            came = os.read(file, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            came = b""
        except OSError:
            os.close(file)
            return
        request = whole_request(came)
        if request is not None:
            self._application.answer(request, Quick(file, self._connections).reply)
            return
        task = self._loop.create_task(self._hand_over(socket.socket(fileno=file), came))
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    async def _hand_over(self, connection: socket.socket, came: bytes) -> object:
        try:
            return await self._loop.connect_accepted_socket(lambda: Door(self._application, self._connections, came), connection)
        except OSError:
            connection.close()
            return None

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._connections.abort_older(time.monotonic() - REQUEST_SECONDS)


def whole_request(came: bytes) -> Request | None:
    """The trigger that these bytes are, all of it and nothing else; None: look at it more closely."""
    if (head := _HEAD_OF_MISTSERVER.match(came)) is not None and len(came) == head.end() + int(head[2]):
        path, _, attempt, instance, pid, uuid, unix_ms = head.groups()
        headers = {b"x-attempt": attempt, b"x-pid": pid, b"x-trigger-uuid": uuid.strip(), b"x-trigger-unixmillis": unix_ms}
        if instance is not None:
            headers[b"x-instance"] = instance.strip()
        return Request(b"POST", path.decode("ascii"), headers, came[head.end() :])
    end = came.find(b"\r\n\r\n")
    if end < 0 or end > MAX_HEAD_BYTES:
        return None
    read = read_head(came[: end + 2])
    if read is None:
        return None
    method, target, headers = read
    length = headers.get(b"content-length", b"")
    if not target.startswith(_PATHS) or b"transfer-encoding" in headers or b"expect" in headers:
        return None
    if not length.isdigit() or len(length) > 7 or int(length) > MAX_BODY_BYTES or len(came) != end + 4 + int(length):
        return None
    return Request(method, target.partition(b"?")[0].decode("latin-1"), headers, came[end + 4 :])
