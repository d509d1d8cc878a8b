"""A process that has imported what our processes need and forks them.

Eleven Python processes that import the same libraries cost eleven seconds of processor time and 700 MB; forked from one
that has imported them, they cost neither. Invariant: this process starts no thread, opens no connection and uses no random
numbers; it imports, forks, reaps, and tells the supervisor who ended. Its end does not end its children. What it forks is
what is on disk: when a file of ours has changed since it was imported, it ends, and its successor imports the new one.

It also holds the sockets that doors listen on and hands them over as systemd does (streams/listening.py): while a door is
dead, its callers wait in the backlog.

One JSON object a line, on an inherited socket. To it: {"module", "args", "env", "log", "title", "listen"}.
From it: {"ready": true}, {"pid": n} (the answer, in order), {"exited": pid, "code": n} (negative: signal); or its end.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import TypedDict

from streams.listening import FIRST_FD, bind
from streams.settings import Listen

PR_SET_NAME = 15
LINE_BYTES = 1 << 20


class Order(TypedDict):
    module: str
    args: list[str]
    env: dict[str, str]
    log: str
    title: str
    listen: str  # host:port of the socket to hand over; empty: none


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    modules = sys.argv[2:]
    for module in modules:
        _preload(module)
    gc.collect()
    gc.freeze()  # what is here now stays shared: the collector does not touch it in the children
    order = _serve(channel)
    if order is not None:  # in a child
        _become(order)


def _preload(module: str) -> None:
    """Imports the module, or a package's __main__, without running it."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None and importlib.util.find_spec(f"{module}.__main__"):
            module = f"{module}.__main__"
        importlib.import_module(module)
    except Exception:  # noqa: BLE001  whoever runs the module will fail with the same trace, in its own log
        traceback.print_exc()


def _serve(channel: socket.socket) -> Order | None:
    """Forks on demand until the supervisor is gone (None); in each child, returns its order."""
    wake, waker = socket.socketpair()
    for s in (wake, waker):
        s.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    pending = b""
    doors: dict[str, socket.socket] = {}
    imported = _sources()
    _tell(channel, {"ready": True})
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if wake in ready:
            wake.recv(4096)
            _reap(channel)
        if channel not in ready:
            continue
        received = channel.recv(LINE_BYTES)
        if not received:
            return None
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            if _changed(imported):
                return None
            order: Order = json.loads(line)
            _open_door(order["listen"], doors)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                selector.close()
                for s in (channel, wake, waker):
                    s.close()
                _hand_over(order, doors)
                return order
            _tell(channel, {"pid": pid})


def _open_door(address: str, doors: dict[str, socket.socket]) -> None:
    """Listens, once for all processes that will serve there. A taken address is left to the process, which says so."""
    if not address or address in doors:
        return
    host, _, port = address.rpartition(":")
    try:
        doors[address] = bind(Listen(host, int(port)))
    except OSError:
        traceback.print_exc()


def _hand_over(order: Order, doors: dict[str, socket.socket]) -> None:
    """In a child: the socket of its door as descriptor 3, those of others closed."""
    mine = doors.pop(order["listen"], None)
    for other in doors.values():
        other.close()
    if mine is None:
        return
    handed = mine.detach()
    if handed != FIRST_FD:
        os.dup2(handed, FIRST_FD)
        os.close(handed)
    order["env"] |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}


def _sources() -> dict[str, int]:
    """Files that were imported and that a developer may edit, and when they were changed."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    ours = [file for file in files if file and not file.startswith((sys.prefix, sys.base_prefix)) and os.path.exists(file)]
    return {file: os.stat(file).st_mtime_ns for file in ours}


def _changed(imported: dict[str, int]) -> bool:
    try:
        return any(os.stat(file).st_mtime_ns != before for file, before in imported.items())
    except FileNotFoundError:
        return True


def _reap(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(channel, {"exited": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(channel: socket.socket, message: dict[str, object]) -> None:
    try:
        channel.sendall(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        return  # the supervisor is gone; the next recv says so


def _become(order: Order) -> None:
    """Turns the fork into what `python -m module args` would be; its exit code is this process's."""
    os.setsid()
    for descriptor, (file, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *[(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)] * 2]
    ):
        opened = os.open(file, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, order["title"].encode()[:15], 0, 0, 0)
    module = order["module"]
    sys.argv = [module, *order["args"]]
    for name in (module, f"{module}.__main__"):
        if name == f"{module}.__main__" or getattr(sys.modules.get(name), "__path__", None) is None:
            sys.modules.pop(name, None)  # run afresh as __main__; a package stays
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
