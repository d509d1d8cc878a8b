"""A MistServer to test against: what one does to it, and what it would then do."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal

from tests.mist import api, crashes, publishers, pushes, ticking, viewers
from tests.mist.clock import Clock
from tests.mist.door import Door, settle
from tests.mist.state import Connection, Flavour, Push, State
from tests.mist.triggers import FORK_ONLY
from tests.mist.wire import Http, Wire

BLOCKING = frozenset(
    {
        "RTMP_PUSH_REWRITE", "PUSH_REWRITE", "STREAM_LOAD", "STREAM_SOURCE", "STREAM_READY", "STREAM_PUSH", "CONN_OPEN",
        "PLAY_REWRITE", "CONN_PLAY", "USER_NEW", "DEFAULT_STREAM", "PUSH_OUT_START", "STREAM_UNLOAD", "SYSTEM_START",
        "SYSTEM_STOP", "STREAM_PROCESS",
    }
)  # fmt: skip
Ending = Literal["stop", "close", "kill"]


class MistServer:
    """Call it from one thread at a time; its API may be called from anywhere. Nothing moves unless `advance` is called."""

    def __init__(self, wire: Wire | None = None, *, flavour: Flavour = "stock", seed: int = 7) -> None:
        self.clock = Clock()
        self.state = State(self.clock, wire or Http(), flavour, dice=random.Random(seed))
        self.state.streams = {}
        self._door: Door | None = None
        with self.state.lock:
            crashes.start(self.state, is_everything=True)

    # The API.

    def listen(self, *, is_local: bool = True) -> str:
        """Opens the API's port; gives its URL."""
        self._door = Door(self.state, is_local=is_local)
        return f"http://127.0.0.1:{self._door.port}"

    def close(self) -> None:
        if self._door:
            self._door.close()

    @property
    def requests(self) -> list[Any]:
        """Every object of commands that came over the port."""
        return self._door.requests if self._door else []

    def call(self, commands: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The API without a port, for a local caller. None: nobody is there."""
        with self.state.lock:
            if self.state.controller is None:
                return None
            answer = {"authorize": {"local": True, "status": "OK"}} | api.execute(self.state, commands)
        settle(self.state)
        return answer

    # What an operator does.

    def configure(self, url: str, *, without: frozenset[str] = frozenset()) -> None:
        """Every trigger to `url/<NAME>`, and the wildcard `live`, as an operator would by hand."""
        names = (set(api.STOCK_TRIGGERS) | {"CONN_STOP"} | (FORK_ONLY if self.state.flavour == "fork" else set())) - without
        triggers = {name: [{"handler": f"{url}/{name}", "sync": name in BLOCKING, "streams": []}] for name in sorted(names)}
        self.call({"config": {"triggers": triggers}, "addstream": {"live": {"source": "push://"}}, "save": True})

    def stop(self) -> bool:
        with self.state.lock:
            return crashes.stop(self.state)

    def start(self) -> None:
        with self.state.lock:
            crashes.start(self.state, is_everything=True)

    # What publishers and viewers do.

    def publish(self, key: str, address: str = "198.51.100.7", *, protocol: str = "RTMP", jwt: str | None = None) -> Connection:
        with self.state.lock:
            return publishers.publish(self.state, key, address, protocol, jwt)

    def unpublish(self, connection: Connection, how: Ending = "stop") -> None:
        """Stops in order, has its socket closed by the kernel, or has its process killed on the server."""
        with self.state.lock:
            match how:
                case "stop":
                    publishers.leave(self.state, connection, "CLEAN_INTENDED_STOP", "received deleteStream")
                case "close":
                    publishers.leave(self.state, connection, "CLEAN_REMOTE_CLOSE", "connection closed")
                case "kill":
                    publishers.vanish(self.state, connection)

    def watch(
        self,
        stream: str,
        address: str = "203.0.113.5",
        *,
        token: str | None = None,
        protocol: str = "HLS",
        jwt: str | None = None,
    ) -> Connection:
        with self.state.lock:
            return viewers.watch(self.state, stream, address, token, protocol, jwt)

    def leave(self, connection: Connection) -> None:
        with self.state.lock:
            viewers.close(self.state, connection)

    # What goes wrong.

    def kill_everything(self) -> None:
        with self.state.lock:
            crashes.kill_everything(self.state)

    def kill_controller(self, *, with_guard: bool = False) -> None:
        with self.state.lock:
            crashes.kill_controller(self.state, with_guard=with_guard)

    def kill_session(self, connection: Connection) -> None:
        """No USER_END, ever; the viewer plays on and is not counted."""
        with self.state.lock:
            if connection.session:
                connection.session.is_gone = True

    def kill_buffer(self, stream: str, *, is_production: bool = True) -> None:
        with self.state.lock:
            crashes.kill_buffer(self.state, stream, is_production=is_production)

    def kill_guard(self, stream: str) -> None:
        with self.state.lock:
            crashes.kill_guard(self.state, stream)

    def kill_push(self, push: Push) -> None:
        with self.state.lock:
            pushes.kill(push)

    # Time.

    def advance(self, seconds: int) -> None:
        """So many seconds go by, one after the other."""
        for _ in range(seconds):
            with self.state.lock:
                ticking.tick(self.state)

    # The truth, for comparison.

    def viewings(self) -> dict[str, int]:
        """Seconds so far by session id, of those that watch, or may come back within the 15 s."""
        return {s.sessid: s.seconds for s in self.state.sessions if not s.kind and not s.is_gone and s.parked_since is None}

    def publishing(self) -> dict[str, int]:
        """Publishers on the air by stream."""
        on_air = [c.stream for c in self.state.publishers.values()]
        return {name: on_air.count(name) for name in on_air}

    def pushing(self) -> list[tuple[str, str]]:
        """(stream, target) of pushes that run."""
        return [(p.stream, p.target) for p in self.state.pushes if p.is_running]
