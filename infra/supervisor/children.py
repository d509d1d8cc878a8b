"""Child processes, spawned or forked, seen alike: a pid, an exit code, and a way to wait for the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from infra.embedded.errors import CannotStart
from infra.embedded.server import Launch, last_words, spawn

POLL_SECONDS = 0.1  # only where the kernel cannot tell us (no pidfd)


class Child(Protocol):
    @property
    def pid(self) -> int: ...
    async def wait(self) -> int | None:
        """Exit code; negative: the signal that ended it; None: nobody knows."""


class Spawned:
    """A direct child."""

    def __init__(self, launch: Launch, log: Path) -> None:
        self._process = spawn(launch, log)
        self.pid = self._process.pid

    async def wait(self) -> int:
        await gone(self.pid)
        return self._process.wait()


class Forked:
    """A child of the zygote, which reaps it and tells us its exit code."""

    def __init__(self, pid: int, code: asyncio.Future[int | None]) -> None:
        self.pid = pid
        self._code = code

    async def wait(self) -> int | None:
        await gone(self.pid)
        return await asyncio.shield(self._code)


class Zygote:
    """The supervisor's end of the zygote. A zygote that died is replaced at the next fork; its children live on."""

    def __init__(self, preload: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._preload, self._env, self._log = preload, env, log
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answers: deque[asyncio.Future[tuple[int, asyncio.Future[int | None]]]] = deque()
        self._codes: dict[int, asyncio.Future[int | None]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Returns when everything is imported."""
        async with self._starting:
            if self._process is None or self._process.poll() is not None:
                await self._launch()
        await self._ready.wait()
        if self._process is None or self._process.poll() is not None:
            raise CannotStart(f"the process that forks the others ended while importing: {last_words(self._log)}")

    async def _launch(self) -> None:
        if self._listening is not None:
            await self._listening
        self._ready.clear()
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220  a fork, not a wait
                (sys.executable, "-m", "infra.supervisor.zygote", str(theirs.fileno()), *self._preload),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self._env),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._listening = asyncio.create_task(self._listen(reader))

    async def fork(
        self, module: str, args: Sequence[str], env: Mapping[str, str], log: Path, title: str, listen: str = ""
    ) -> Forked:
        """`listen`: host:port of the socket that the process gets handed over (streams/listening.py)."""
        order = json.dumps(
            {"module": module, "args": list(args), "env": dict(env), "log": str(log), "title": title, "listen": listen}
        )
        while True:
            try:
                pid, code = await self._order(order)
            except ConnectionError:
                continue  # the zygote ended before it answered
            return Forked(pid, code)

    async def _order(self, order: str) -> tuple[int, asyncio.Future[int | None]]:
        """Raises ConnectionError when the zygote ends before it answers, CannotStart when it cannot even begin."""
        await self.start()
        if self._writer is None:
            raise ConnectionError
        answer: asyncio.Future[tuple[int, asyncio.Future[int | None]]] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._writer.write(order.encode() + b"\n")
        return await answer

    async def stop(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._listening is not None:
            await self._listening
        if self._process is not None and self._process.poll() is None:
            await gone(self._process.pid)
            self._process.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                match json.loads(line):
                    case {"pid": int(pid)}:
                        self._codes[pid] = loop.create_future()
                        waiting = self._answers.popleft()
                        if not waiting.cancelled():
                            waiting.set_result((pid, self._codes[pid]))
                    case {"exited": int(pid), "code": int(exit_code)}:
                        self._codes.pop(pid).set_result(exit_code)
                    case _:
                        self._ready.set()
        if self._process is not None:
            await gone(self._process.pid)
            self._process.wait()
        self._ready.set()
        for unanswered in self._answers:
            unanswered.set_exception(ConnectionError())
        self._answers.clear()
        for code in self._codes.values():
            code.set_result(None)  # whoever waits learns of the end itself from the kernel
        self._codes.clear()


async def gone(pid: int) -> None:
    """Returns when the process has ended, whoever its parent is."""
    if hasattr(os, "pidfd_open"):
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, _settle, ended)
        try:
            await ended
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return
    while _exists(pid):  # noqa: ASYNC110  nobody could set an event
        await asyncio.sleep(POLL_SECONDS)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def end(child: Child, signals: Sequence[signal.Signals], patience_seconds: float) -> int | None:
    """Sends the signals one after the other, each with its patience, SIGKILL last; gives the exit code."""
    waiting = asyncio.ensure_future(child.wait())
    for number in (*signals, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
        done, _ = await asyncio.wait([waiting], timeout=patience_seconds)
        if done:
            break
    return await waiting
