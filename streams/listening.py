"""The socket that a process listens on: inherited from whoever supervises it (systemd's socket activation), else its own.

Why inherited: while the process is dead its callers wait in the backlog instead of being refused. A media server forgets a
trigger that is refused (CONTRACT 2.1); one that waits in the backlog is read by the next process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from streams.settings import Listen

BACKLOG = 4096
FIRST_FD = 3  # sd_listen_fds(3)


def listen(address: Listen, env: MutableMapping[str, str] | None = None) -> socket.socket:
    """A listening, non-blocking TCP socket. Raises OSError when the address is taken."""
    env = os.environ if env is None else env
    if env.get("LISTEN_PID") == str(os.getpid()) and env.get("LISTEN_FDS") == "1":
        del env["LISTEN_PID"], env["LISTEN_FDS"]  # not for our children
        inherited = socket.socket(fileno=FIRST_FD)
        inherited.setblocking(False)
        return inherited
    return bind(address)


def bind(address: Listen) -> socket.socket:
    """A new listening socket."""
    return socket.create_server((address.host, address.port), backlog=BACKLOG)
