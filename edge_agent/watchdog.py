"""Tells systemd that the agent is ready, and every few seconds that its loop still turns; nothing where no systemd listens.

Source: sd_notify(3). A datagram to the socket in NOTIFY_SOCKET; WATCHDOG_USEC says within which time the next one is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

STATUS_SECONDS: Final = 10.0


class Watchdog:
    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        path = env.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path
        wanted_usec = env.get("WATCHDOG_USEC", "")
        # Three times within the limit: one may be late.
        self.every_seconds = int(wanted_usec) / 3e6 if wanted_usec.isdecimal() and int(wanted_usec) else STATUS_SECONDS

    def tell(self, **states: str) -> None:
        """Best effort: who does not listen any more is not told."""
        if self._path:
            message = "\n".join(f"{name}={value}" for name, value in states.items())
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.connect(self._path)
                out.send(message.encode())

    async def run(self, status: Callable[[], str]) -> None:
        """READY, and then alive, until it is cancelled; then STOPPING."""
        if not self._path:
            return
        self.tell(READY="1", STATUS=status())
        try:
            while True:
                await asyncio.sleep(self.every_seconds)
                self.tell(WATCHDOG="1", STATUS=status())
        finally:
            self.tell(STOPPING="1")
