"""How a trigger goes over the wire (CONTRACT section 1 and 2): one HTTP/1.1 POST on a TCP connection of its own."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Protocol
from urllib.parse import quote, urlsplit

HANDLER_BYTES = 127  # of a handler's URL; what is behind is cut off, silently
ATTEMPTS = 5
ATTEMPT_SECONDS = 5.0


@dataclass(frozen=True)
class Post:
    """One attempt."""

    url: str
    name: str
    body: bytes
    uuid: str
    attempt: int
    instance: str  # empty: not known yet
    server_name: str
    pid: int
    unix_ms: int
    is_sync: bool

    @property
    def headers(self) -> dict[str, str]:
        """As MistServer sends them: sorted by name. Without those that it does not know."""
        found = {
            "Accept": "*/*",
            "Content-Length": str(len(self.body)),
            "Content-Type": "text/plain",
            "Date": format_datetime(datetime.fromtimestamp(self.unix_ms // 1000, UTC)),
            "Host": urlsplit(self.url).netloc.rpartition("@")[2],
            "User-Agent": "MistServer/3.10",
            "X-Attempt": str(self.attempt),
            "X-Instance": self.instance,
            "X-Name": self.server_name,
            "X-PID": str(self.pid),
            "X-Trigger": self.name,
            "X-Trigger-UUID": self.uuid,
            "X-Trigger-UnixMillis": str(self.unix_ms),
            "X-Version": "3.10",
        }
        return {name: value for name, value in sorted(found.items()) if value}


@dataclass(frozen=True)
class Answer:
    status: int
    text: str


class Failed(Exception):
    """No answer: `is_refused` where not even a connection came about."""

    def __init__(self, *, is_refused: bool) -> None:
        super().__init__()
        self.is_refused = is_refused


class Wire(Protocol):
    def post(self, post: Post) -> Answer | None:
        """The answer to a blocking trigger, None for one that was only written. Raises Failed."""


class Http:
    """Over real sockets."""

    def __init__(self, attempt_seconds: float = ATTEMPT_SECONDS) -> None:
        self.attempt_seconds = attempt_seconds

    def post(self, post: Post) -> Answer | None:
        address = urlsplit(post.url)
        target = quote(address.path or "/", safe="/%") + (f"?{address.query}" if address.query else "")
        head = "".join(f"{name}: {value}\r\n" for name, value in post.headers.items())
        try:
            connection = socket.create_connection((address.hostname or "", address.port or 80), self.attempt_seconds)
        except OSError:
            raise Failed(is_refused=True) from None
        with connection:
            try:
                connection.sendall(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + post.body)
            except OSError:
                raise Failed(is_refused=True) from None
            if not post.is_sync:
                return None  # closed without reading: the other side gets a reset
            try:
                return _answer(connection)
            except (OSError, ValueError):
                raise Failed(is_refused=False) from None


def _answer(connection: socket.socket) -> Answer:
    with contextlib.closing(connection.makefile("rb")) as reader:
        status = int(reader.readline().split()[1])
        length = 0
        while line := reader.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = reader.read(length)
        if len(body) < length:
            raise ValueError("half an answer")
        return Answer(status, body.decode())
