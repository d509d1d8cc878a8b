"""What lies between a simulated process and the databases: requests, and what may happen to them on their way.

Invariant: a request is applied once or not at all, whatever becomes of its answer. A process that is killed does nothing
further, and every server sees its connections end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from tests.sim.loop import Process, SimLoop, current

T = TypeVar("T")


class Fault(Enum):
    """What happens to one request, in words that follow `worker 2: its COMMIT …`."""

    KILLED_BEFORE = "did not arrive, for it was killed"
    KILLED_AFTER = "was applied, and it was killed before it heard so"
    REQUEST_LOST = "was lost with the connection"
    ANSWER_LOST = "was applied, but the answer was lost with the connection"
    FROZEN = "was applied, and it was frozen before it heard so"

    @property
    def is_applied(self) -> bool:
        return self in (Fault.KILLED_AFTER, Fault.ANSWER_LOST, Fault.FROZEN)

    @property
    def is_deadly(self) -> bool:
        return self in (Fault.KILLED_BEFORE, Fault.KILLED_AFTER)


@dataclass(slots=True)
class Trap:
    """Strikes the `nth` request (from 1) of a process whose name begins with `what`; once."""

    process: Process
    nth: int
    fault: Fault
    what: str = ""


@dataclass(slots=True)
class Wire:
    """Carries requests to servers. `tell`: who wants to hear, in words, what it does to them."""

    loop: SimLoop
    tell: Callable[[str], None] = lambda _: None
    traps: list[Trap] = field(default_factory=list)
    ended: list[Callable[[Process], None]] = field(default_factory=list)
    """Servers: told of a process that is gone, so that they end its connections."""
    _server: Process = field(init=False)

    def __post_init__(self) -> None:
        self._server = self.loop.process("servers")

    async def request(
        self, what: str, serve: Callable[[], Coroutine[Any, Any, T]], lost: Callable[[], Exception], drop: Callable[[], None]
    ) -> T:
        """The answer of a server. `lost` makes what the client raises when the connection ends, `drop` ends it on the server."""
        process, answer = current(), self.loop.create_future()

        def give(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)
                answer.exception()  # its process may be gone: nobody has to look at it

        async def carry() -> None:
            fault = self._sprung(process, what)
            result, error = None, None
            if fault is None or fault.is_applied:
                try:
                    result = await serve()
                except Exception as raised:  # noqa: BLE001  # whatever it is, it is the answer
                    error = raised
            if fault is None:
                give(result, error)
            elif fault.is_deadly:
                self.kill(process)
            elif fault is Fault.FROZEN:
                process.freeze()
                give(result, error)
            else:
                drop()
                give(None, lost())

        self._server.start(carry())
        return await answer  # type: ignore[no-any-return]  # a future of the loop is of anything

    def later(self, seconds: float, do: Callable[[], None]) -> Callable[[], None]:
        """A server's own timer; gives what stops it."""

        async def wait() -> None:
            self.loop.call_later(seconds, lambda: None if stopped else do())

        stopped: list[bool] = []
        self._server.start(wait())
        return lambda: stopped.append(True)

    def kill(self, process: Process) -> None:
        """kill -9: its connections end at once."""
        process.kill()
        for tell in self.ended:
            tell(process)

    def _sprung(self, process: Process, what: str) -> Fault | None:
        for trap in self.traps:
            if trap.process is process and what.startswith(trap.what):
                trap.nth -= 1
                if trap.nth <= 0:
                    self.traps.remove(trap)
                    self.tell(f"{process.name}: its {what} {trap.fault.value}")
                    return trap.fault
        return None
