"""The door of the agent: HTTP/1.1, one request per connection, as MistServer speaks it (CONTRACT sections 1 and 2).

Invariant: an answer is exactly its bytes: Content-Length is set, nothing is added, no newline. What is too large is refused by
its head, before its body is buffered. A client that does not wait for the answer (asynchronous triggers) loses nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol, cast

MAX_HEAD_BYTES: Final = 16 << 10
MAX_BODY_BYTES: Final = 1 << 20
REQUEST_SECONDS: Final = 10.0  # to send a whole request; MistServer itself gives up after 5
REFUSAL_SECONDS: Final = 2.0  # a refused body is read away for so long, so that the refusal is not lost in a reset
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_OK_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: "
# Every field of a head at once, in C; `_FIELDS` is what a head has to be for that to be all of it.
_FIELD: Final = re.compile(rb"([^:\r\n]+):([^\r\n]*)\r\n")
_FIELDS: Final = re.compile(rb"(?:[^:\r\n]+:[^\r\n]*\r\n)*")


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class Request:
    method: bytes
    path: str
    headers: Mapping[bytes, bytes]  # by lower-case name
    body: bytes


Reply = Callable[[int, bytes], None]


class Application(Protocol):
    """What stands behind the door."""

    def answer(self, request: Request, reply: Reply) -> None:
        """Calls `reply` once, now or later."""

    def refused(self, status: int) -> None:
        """A request was refused before it was one; for the counters."""


class Door(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_application",
        "_awaits_reply",
        "_buffer",
        "_came",
        "_connections",
        "_is_answered",
        "_length",
        "_request",
        "_transport",
        "opened_at",
    )

    def __init__(self, application: Application, connections: Connections, came: bytes = b"") -> None:
        self._application, self._connections = application, connections
        self._came = came  # what was read of the connection before it was ours
        self._buffer = bytearray()
        self._request: tuple[bytes, str, dict[bytes, bytes]] | None = None
        self._length = 0
        self._is_answered = False  # or being answered: what comes now is not read any more
        self._awaits_reply = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport | None = cast(asyncio.Transport, transport)  # uvloop's are no instances of it
        self.opened_at = time.monotonic()
        self._connections.add(self)
        if self._came:
            came, self._came = self._came, b""
            self.data_received(came)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

    def eof_received(self) -> bool:
        return self._awaits_reply  # keep the sending side open for an answer that is on its way; else close

    def data_received(self, data: bytes) -> None:
        if self._is_answered:
            return
        buffer = self._buffer
        buffer += data
        if self._request is None and not self._read_head():
            return
        if len(buffer) < self._length or self._request is None:
            return
        self._is_answered = self._awaits_reply = True
        method, path, headers = self._request
        self._application.answer(Request(method, path, headers, bytes(buffer[: self._length])), self.reply)

    def _read_head(self) -> bool:
        """Whether the head is there and good; its bytes are taken off the buffer then."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD_BYTES:
            if len(buffer) > MAX_HEAD_BYTES:
                self._refuse(431)
            return False
        head = bytes(buffer[: end + 2])
        del buffer[: end + 4]
        read = read_head(head)
        if read is None:
            self._refuse(400)
            return False
        method, target, headers = read
        return self._read_length(headers) and self._accept(method, target, headers)

    def _read_length(self, headers: Mapping[bytes, bytes]) -> bool:
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers:
            self._refuse(411)
        elif not length.isdigit() or len(length) > 12:
            self._refuse(400)
        elif int(length) > MAX_BODY_BYTES:
            self._refuse(413)
        else:
            self._length = int(length)
            return True
        return False

    def _accept(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> bool:
        self._request = method, target.partition(b"?")[0].decode("latin-1"), headers
        if headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def reply(self, status: int, body: bytes) -> None:
        """Answers and closes. A client that is gone already is no error."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(answer_bytes(status, body))
        transport.close()

    def _refuse(self, status: int) -> None:
        """Answers without reading on."""
        self._is_answered = True
        self._buffer.clear()
        self._application.refused(status)
        transport = self._transport
        if transport is None:
            return
        transport.write(_other_head(status, 0))
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(REFUSAL_SECONDS, transport.close)

    def abort_if_older(self, moment: float) -> None:
        """Ends a connection that began before a moment and has not sent its request."""
        if not self._is_answered and self.opened_at < moment and self._transport is not None:
            self._transport.abort()


def read_head(head: bytes) -> tuple[bytes, bytes, dict[bytes, bytes]] | None:
    """Method, target and fields by lower-case name of a head up to the end of its last field; None: it is none of HTTP/1."""
    request_line, _, fields = head.partition(b"\r\n")
    words = request_line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or not words[1].startswith(b"/"):
        return None
    found = _FIELD.findall(fields)
    headers: dict[bytes, bytes] = {name.lower(): value.strip() for name, value in found}
    if not _FIELDS.fullmatch(fields) or (len(headers) < len(found) and _is_repeated(found, b"content-length")):
        return None
    return words[0], words[1], headers


def _is_repeated(fields: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bool:
    return sum(name.lower() == wanted for name, _ in fields) > 1


def answer_bytes(status: int, body: bytes) -> bytes:
    if status == 200:
        return b"%s%d\r\n\r\n%s" % (_OK_HEAD, len(body), body)
    return _other_head(status, len(body)) + body


def _other_head(status: int, length: int) -> bytes:
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode()


class Open(Protocol):
    """A connection, to those who keep them."""

    def abort_if_older(self, moment: float) -> None: ...


class Connections:
    """Those that are open."""

    def __init__(self) -> None:
        self.open: set[Open] = set()
        self.none_open = asyncio.Event()
        self.none_open.set()

    def add(self, door: Open) -> None:
        self.open.add(door)
        self.none_open.clear()

    def discard(self, door: Open) -> None:
        self.open.discard(door)
        if not self.open:
            self.none_open.set()

    def abort_older(self, moment: float) -> None:
        for door in tuple(self.open):
            door.abort_if_older(moment)
