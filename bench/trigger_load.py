"""Sends triggers as MistServer does, one new TCP connection each, with as little work as Python can: plain sockets and epoll.

A generator that costs more than what it measures measures itself.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

import psutil

CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Figures:
    triggers_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_trigger: float  # of the server's process


def user_new(number: int) -> bytes:
    """A viewer joins: the request as it was recorded, with another session each time."""
    session = f"{number:064x}"
    body = f"live+lobby\n127.0.1.1\n{number}\nHLS\nhttp://127.0.0.1:18080/hls/live%2blobby/index.m3u8\n{session}\nfalse"
    return (
        "POST /trigger/USER_NEW HTTP/1.1\r\nAccept: */*\r\n"
        f"Content-Length: {len(body)}\r\nContent-Type: text/plain\r\nDate: Fri, 20 Nov 2026 11:26:39 +0000\r\n"
        "Host: 127.0.0.1:18007\r\nUser-Agent: MistServer/3.10\r\nX-Attempt: 1\r\nX-Instance: bkTJOIeegaccMnXY\r\n"
        f"X-Name: edge\r\nX-PID: {number}\r\nX-Trigger: USER_NEW\r\nX-Trigger-UUID: {number}\r\n"
        f"X-Trigger-UnixMillis: {1795173999227 + number}\r\nX-Version: 3.10\r\n\r\n{body}"
    ).encode()


def load(port: int, pid: int, seconds: float, first: int = 0, at_most: int = 1 << 40) -> Figures:
    """Triggers numbered from `first` for so long, or so many. RuntimeError: one was not answered `true`."""
    return _Load(port, (user_new(n) for n in range(first, first + at_most))).run(pid, seconds)


class OneTrigger(asyncio.Protocol):
    """One trigger for those who have a loop: connects, sends, reads to the end."""

    def __init__(self, request: bytes, done: asyncio.Future[bytes]) -> None:
        self._request, self._done, self._answer = request, done, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)  # uvloop's are no instances of it

    def data_received(self, data: bytes) -> None:
        self._answer += data

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(self._answer)


class _Load:
    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._address, self._requests = ("127.0.0.1", port), requests
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, float]] = {}
        self._taken: list[float] = []

    def run(self, pid: int, seconds: float) -> Figures:
        process = psutil.Process(pid)
        before, began = sum(process.cpu_times()[:2]), time.perf_counter()
        for _ in range(CONNECTIONS):
            self._connect()
        while self._open:
            is_over = time.perf_counter() >= began + seconds
            for file, _ in self._epoll.poll():
                if self._is_answered(file) and not is_over:
                    self._connect()
        elapsed, cpu = time.perf_counter() - began, sum(process.cpu_times()[:2]) - before
        taken = sorted(self._taken)
        return Figures(
            len(taken) / elapsed, 1e3 * taken[len(taken) // 2], 1e3 * taken[int(len(taken) * 0.99)], 1e6 * cpu / len(taken)
        )

    def _connect(self) -> None:
        request = next(self._requests, None)
        if request is None:
            return
        began = time.perf_counter()
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.connect(self._address)  # on loopback it is there at once, unless the backlog is full
        one.sendall(request)
        self._open[one.fileno()] = one, began
        self._epoll.register(one.fileno(), select.EPOLLIN)

    def _is_answered(self, file: int) -> bool:
        one, began = self._open[file]
        answer = one.recv(4096)
        if not answer.endswith(b"true"):  # the end of the answer; its head may come by itself
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"unexpected answer: {answer!r}")
            return False
        self._taken.append(time.perf_counter() - began)
        del self._open[file]
        one.close()
        return True
