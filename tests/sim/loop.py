"""An event loop in virtual time, whose work belongs to processes that can be frozen, woken and killed.

Invariant: same seed, same run. Time stands still while anything can be done and then jumps to the next timer; nothing asks the
machine's clock. Within a process callbacks run in the order in which they became ready, as on any loop; between processes a
seeded random chooses, as the machines of a cluster do.

A task or callback belongs to the process in whose context it was made, so what a client awaits comes back to that client.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio.events import Handle, TimerHandle
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

T = TypeVar("T")

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Virtual second 0."""
STEPS_AT_ONCE: Final = 200_000
_CURRENT: ContextVar[Process] = ContextVar("process")


class Stuck(AssertionError):
    """What was waited for cannot come, or did not come in time."""


class Process:
    """What one process of the operating system would run. Made by `SimLoop.process`."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name, self._loop = name, loop
        self.is_frozen = self.is_killed = False
        self.frozen_at = 0.0
        self.clock_skew = timedelta()
        self.ready: deque[Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []

    def __repr__(self) -> str:
        return self.name

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = copy_context()
        context.run(_CURRENT.set, self)
        return self._loop.create_task(work, context=context)

    def now(self) -> datetime:
        """What its clock shows."""
        return BEGINNING + timedelta(seconds=self._loop.time()) + self.clock_skew

    def freeze(self) -> None:
        """Its code does not run (SIGSTOP); what it sent is on its way, what it gets waits."""
        if not self.is_frozen:
            self.is_frozen, self.frozen_at = True, self._loop.time()

    def wake(self) -> None:
        self.is_frozen = False

    def kill(self) -> None:
        """Its code never runs again, not even to clean up (kill -9); what it sent is on its way."""
        self.is_killed = True


def current() -> Process:
    """The process whose code runs."""
    return _CURRENT.get()


class SimLoop(asyncio.BaseEventLoop):
    """See the module. `steps` counts the callbacks that ran."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.steps = 0
        self._now = 0.0
        self._steps_at_once = 0
        self._number = 0
        self._timers: list[tuple[float, int, TimerHandle, Process]] = []
        self._nature = Process(self, "nature")
        self._processes = [self._nature]
        self.set_exception_handler(self._unhandled)
        self.unhandled: list[str] = []
        """What no code of a living process looked at: exceptions of tasks that nobody awaited, broken callbacks."""

    def process(self, name: str) -> Process:
        made = Process(self, name)
        self._processes.append(made)
        return made

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs until the work is done; its result."""
        task = self._nature.start(work)
        self.run_until(task.done)
        return task.result()

    def run_for(self, seconds: float) -> None:
        """Lets virtual time pass."""
        end = self._now + seconds
        self._spin(lambda: False, end)
        self._now = max(self._now, end)

    def run_until(self, condition: Callable[[], bool], seconds: float = float("inf")) -> None:
        """Runs until the condition holds, looking after every step. Raises Stuck: it will not, or not in so many seconds."""
        if not self._spin(condition, self._now + seconds):
            raise Stuck(f"waited {seconds} virtual seconds in vain")

    def run_until_quiet(self) -> None:
        """Does all that can be done without time passing."""
        self._spin(lambda: False, self._now)

    def end(self) -> None:
        """Ends every task that is left, so that none complains about it later; also those of the killed."""
        for process in self._processes:
            process.is_frozen = process.is_killed = False
        for _ in range(100):
            left = [task for process in self._processes for task in process.tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_for(60)
        for process in self._processes:
            for task in process.tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # whoever wanted it has had it
            process.tasks.clear()
        self.close()

    # what asyncio calls

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        context = copy_context() if context is None else context
        handle = Handle(callback, args, self, context)
        context.get(_CURRENT, self._nature).ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        context = copy_context() if context is None else context
        handle = TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, handle, context.get(_CURRENT, self._nature)))
        return handle

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """It is left in the heap, and thrown away when its time comes."""

    def create_task(
        self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name=str(name or "task"), context=context)
        process = (context or copy_context()).get(_CURRENT, self._nature)
        process.tasks.append(task)
        if len(process.tasks) > 500:
            process.tasks = [task for task in process.tasks if not task.done()]
        return task

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """A thread's work is one step of its process."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the caller's
                future.set_exception(error)

        self.call_soon(work)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    # the loop itself

    def _spin(self, condition: Callable[[], bool], end: float) -> bool:
        """Runs steps until the condition holds; False: it does not at `end`, or nothing is left to do."""
        asyncio.events._set_running_loop(self)
        try:
            while not condition():
                if (handle := self._next(end)) is None:
                    return False
                self.steps += 1
                self._steps_at_once += 1
                if self._steps_at_once > STEPS_AT_ONCE:
                    raise Stuck(f"{STEPS_AT_ONCE} steps without a pause: {handle}")
                handle._run()
            return True
        finally:
            asyncio.events._set_running_loop(None)

    def _next(self, end: float) -> Handle | None:
        while True:
            ready = [process for process in self._processes if process.ready and not process.is_frozen and not process.is_killed]
            if ready:
                process = ready[0] if len(ready) == 1 else ready[self.random.randrange(len(ready))]
                handle = process.ready.popleft()
                if not handle._cancelled:
                    return handle
            elif not self._pass_time(end):
                return None

    def _pass_time(self, end: float) -> bool:
        """To the next timer; all that are due then become ready."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers or timers[0][0] > end:
            return False
        self._now = max(self._now, timers[0][0])
        self._steps_at_once = 0
        while timers and timers[0][0] <= self._now:
            _, _, handle, process = heapq.heappop(timers)
            process.ready.append(handle)
        return True

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(f"{context['message']}: {context.get('exception')!r}")
