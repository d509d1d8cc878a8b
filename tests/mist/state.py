"""What a MistServer consists of: its controller, and processes that outlive it (CONTRACT sections 3 to 6)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.mist.clock import Clock
from tests.mist.triggers import Handler, Outcome, send
from tests.mist.wire import Wire

STATS_DELAY = 15  # seconds without a connection after which a session ends
PARKED = 600  # seconds for which a refused session stays refused
STAT_CUTOFF = 600
INSTANCE_ALPHABET = "".join(map(chr, range(0x40, 0x7E)))
PRIVATE = ("::1", "127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12")  # not counted, by default
Flavour = Literal["stock", "fork"]


@dataclass
class Session:
    """A session process, and what goes through it. `kind`: empty for viewers, else I or O, the first letter of its id."""

    sessid: str
    kind: str
    stream: str
    host: str
    protocol: str
    pid: int
    last_seen: int
    token: str = ""
    url: str = ""
    connections: int = 0
    seconds: int = 0
    up: int = 0
    down: int = 0
    up_rate: int = 0
    down_rate: int = 0
    parked_since: int | None = None  # refused: the process waits for ten minutes
    is_gone: bool = False


@dataclass
class Connection:
    """A process that serves one connection of a publisher or viewer."""

    pid: int
    stream: str
    host: str
    protocol: str
    url: str
    session: Session | None = None
    is_open: bool = True
    started: int = 0
    refusal: str | None = None  # why it is not on the air, or shows nothing
    is_hanging: bool = False  # let in, and waits for a buffer that does not come


@dataclass
class Buffer:
    pid: int
    full_at: int | None = None  # boot second at which FULL is said
    is_dead: bool = False  # killed: its stream's media still lies in shared memory
    idle_since: int | None = None
    media_ms: int = 0
    is_guarded: bool = True  # by a second process, which cleans up behind it


@dataclass
class Push:
    pid: int
    stream: str
    target: str
    target_used: str
    started: int
    session: Session | None
    protocol: str
    is_running: bool = True
    is_heard_of: bool = False  # the controller has told its end


@dataclass
class Totals:
    """Of one stream, until its STREAM_END."""

    viewers: int = 0
    inputs: int = 0
    outputs: int = 0
    viewer_seconds: int = 0
    up: int = 0
    down: int = 0
    quiet_since: int | None = None


@dataclass
class Controller:
    instance: str
    pid: int
    config: dict[str, Any]
    started: int = 0  # boot second
    is_instance_known: bool = False  # until the first write of the configuration
    log: dict[str, list[tuple[int, Session, int, int, int]]] = field(default_factory=dict)  # sessid: (boot, …, seconds, up, down)
    pushes: list[int] = field(default_factory=list)  # pids of push processes that it knows


@dataclass
class State:
    clock: Clock
    wire: Wire
    flavour: Flavour = "stock"
    name: str = "edge-under-test"
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    lock: threading.Lock = field(default_factory=threading.Lock)
    controller: Controller | None = None
    saved: dict[str, Any] = field(default_factory=dict)  # the configuration on disk
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    bandwidth: list[str] = field(default_factory=lambda: list(PRIVATE))
    account: tuple[str, str] | None = None  # user name, password
    streamkeys: dict[str, str] = field(default_factory=dict)
    jwts: set[str] = field(default_factory=set)  # tokens that it takes by itself
    buffers: dict[str, Buffer] = field(default_factory=dict)
    locks: set[str] = field(default_factory=set)  # that killed buffers left: whoever publishes next hangs
    hanging: list[Connection] = field(default_factory=list)
    publishers: dict[int, Connection] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)  # streams that the balancer knows another server of
    fetched: dict[str, Session] = field(default_factory=dict)  # streams that come from there
    sessions: list[Session] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    totals: dict[str, Totals] = field(default_factory=dict)
    later: list[Callable[[], None]] = field(default_factory=list)  # what other processes do about an API call, behind its back
    is_listing_parked: bool = False  # whether `clients` shows refused sessions: not measured, so both are tried
    watched: dict[str, int] = field(default_factory=dict)  # seconds that were really watched, by session id
    _pid: int = 1000

    def next_pid(self) -> int:
        self._pid += self.dice.randint(1, 5)
        return self._pid

    def new_controller(self) -> Controller:
        instance = "".join(self.dice.choice(INSTANCE_ALPHABET) for _ in range(16))
        return Controller(instance, self.next_pid(), deepcopy(self.saved["config"]), self.clock.boot_seconds)

    def fire(self, name: str, *lines: str, pid: int | None = None, stream: str = "") -> Outcome:
        """A trigger of a process; None: of the controller, whose API answers nobody until it is through."""
        controller = self.controller
        config = controller.config if controller else self.saved["config"]
        handlers = [Handler.read(raw) for raw in config.get("triggers", {}).get(name, ())]
        if not handlers or (pid is None and controller is None):
            return Outcome(None, True)
        post = {
            "name": name,
            "body": "\n".join(lines).encode(),
            "uuid": self._uuid(),
            "instance": controller.instance if controller and controller.is_instance_known else "",
            "server_name": config.get("serverid", ""),
            "pid": pid if pid is not None else controller.pid if controller else 0,
            "unix_ms": self.clock.wall_ms,
        }
        if pid is None:
            return send(handlers, self.wire, post, stream)
        self.lock.release()  # other processes do not stop the API
        try:
            return send(handlers, self.wire, post, stream)
        finally:
            self.lock.acquire()

    def _uuid(self) -> str:
        first = f"{self.dice.getrandbits(32):08x}-{self.dice.getrandbits(16):04x}-4{self.dice.getrandbits(12):03x}"
        return f"{first}-b04b-cff00b328af0"  # the tail is nearly constant

    def sessions_of(self, stream: str, kinds: str = "VIO") -> list[Session]:
        return [s for s in self.sessions if s.stream == stream and not s.is_gone and (s.kind or "V") in kinds]

    def total(self, stream: str) -> Totals:
        return self.totals.setdefault(stream, Totals())

    def is_configured(self, stream: str) -> bool:
        return stream in self.streams or stream.partition("+")[0].partition(" ")[0] in self.streams

    def is_uncounted(self, host: str) -> bool:
        """Whether its bytes and seconds are left out: the exceptions of `bandwidth`, the default being private addresses."""
        from ipaddress import ip_address, ip_network

        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in ip_network(network, strict=False) for network in self.bandwidth)
