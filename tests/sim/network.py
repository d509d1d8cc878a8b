"""What lies between a client and the broker, and what may go wrong there.

Invariant: the requests of one connection arrive in the order in which they were sent, and what was sent on a connection that
broke does not arrive later. An answer comes back to the process that asked, when it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from aiokafka.errors import ConcurrentTransactions, KafkaConnectionError, KafkaError, RequestTimedOutError

from tests.sim.loop import Process, SimLoop, current

T = TypeVar("T")
Moment = Literal["before", "after"]
Action = Literal["kill", "freeze", "lose"]

REQUEST_SECONDS: Final = 15.0


@dataclass(slots=True)
class Faults:
    """How probable it is that a request meets each of them."""

    lose_request: float = 0.0
    lose_answer: float = 0.0  # the broker did what was asked
    delay: float = 0.0
    delay_max_seconds: float = 3.0

    def heal(self) -> None:
        self.lose_request = self.lose_answer = self.delay = 0.0


@dataclass(frozen=True, slots=True)
class Trap:
    """What happens to a process the next time that it makes a request: before it is sent, or after the broker did it."""

    process: Process
    api: str
    moment: Moment
    action: Action


class Connection:
    """Of one client."""

    def __init__(self) -> None:
        self.number = 0
        self.last_arrival = 0.0

    def drop(self) -> None:
        self.number += 1


class Network:
    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.faults = Faults()
        self.traps: list[Trap] = []
        self.on_sprung: Callable[[Trap], None] = lambda _: None
        self.requests = 0
        self._down_until = 0.0
        self._waiting: dict[asyncio.Future[Any], None] = {}

    def trap(self, process: Process, api: str, moment: Moment, action: Action) -> None:
        self.traps.append(Trap(process, api, moment, action))

    def restart(self, seconds: float) -> None:
        """The broker is away for so long; what it has on disk is there afterwards, every connection is broken."""
        self._down_until = self._loop.time() + seconds
        for future in list(self._waiting):
            self._fail(future, KafkaConnectionError("the broker went away"))

    @property
    def is_down(self) -> bool:
        return self._loop.time() < self._down_until

    def latency(self) -> float:
        return self._loop.random.uniform(0.0001, 0.002)

    def at(self, seconds: float, what: Callable[[], object]) -> None:
        """Something that happens by itself, in no process."""
        self._loop.call_later(seconds, what, context=Context())

    async def request(
        self,
        connection: Connection,
        api: str,
        handle: Callable[[], object],
        timeout_seconds: float = REQUEST_SECONDS,
    ) -> Any:
        """What `handle` returns when it runs at the broker (or what its future brings). Raises its error, or that of a broken
        connection."""
        process = current()
        lost = await self._before(process, api)
        self.requests += 1
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[answer] = None
        faults, random = self.faults, self._loop.random
        delay = self.latency()
        if faults.delay and random.random() < faults.delay:
            delay += random.uniform(0, faults.delay_max_seconds)
        lost = lost or (faults.lose_request > 0 and random.random() < faults.lose_request)
        number = connection.number
        connection.last_arrival = max(connection.last_arrival, self._loop.time() + delay)
        arrival = connection.last_arrival - self._loop.time()
        if lost or self.is_down:
            self.at(arrival, lambda: self._break(connection, answer))
        else:
            self.at(arrival, lambda: self._arrive(process, connection, number, api, handle, answer))
        timer = self._loop.call_later(timeout_seconds, self._fail, answer, RequestTimedOutError(), context=Context())
        try:
            return await answer
        except KafkaError as error:
            if isinstance(error, KafkaConnectionError | RequestTimedOutError):
                connection.drop()
            raise
        finally:
            timer.cancel()
            self._waiting.pop(answer, None)

    def _arrive(
        self,
        process: Process,
        connection: Connection,
        number: int,
        api: str,
        handle: Callable[[], object],
        answer: asyncio.Future[Any],
    ) -> None:
        if self.is_down:
            self._break(connection, answer)
            return
        if connection.number != number:
            return
        try:
            result: object = handle()
        except KafkaError as error:
            failed = self._loop.create_future()
            failed.set_exception(error)
            result = failed
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda done: self._answer(process, connection, api, done, answer), context=Context())
        else:
            done: asyncio.Future[Any] = self._loop.create_future()
            done.set_result(result)
            self._answer(process, connection, api, done, answer)

    def _answer(
        self, process: Process, connection: Connection, api: str, done: asyncio.Future[Any], answer: asyncio.Future[Any]
    ) -> None:
        if done.cancelled():
            return
        random = self._loop.random
        lost = self._spring(process, api, "after") or (self.faults.lose_answer > 0 and random.random() < self.faults.lose_answer)
        error = done.exception()

        def deliver() -> None:
            if answer.done():
                return
            if lost:
                self._break(connection, answer)
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        self.at(self.latency(), deliver)

    async def _before(self, process: Process, api: str) -> bool:
        lost = self._spring(process, api, "before")
        if process.is_killed:
            await self._loop.create_future()  # for ever
        if process.is_frozen:
            await asyncio.sleep(0)  # until it is woken
        return lost

    def _spring(self, process: Process, api: str, moment: Moment) -> bool:
        """Springs a trap that is set here; whether it loses what is on its way."""
        for trap in self.traps:
            if trap.process is process and trap.api == api and trap.moment == moment:
                self.traps.remove(trap)
                self.on_sprung(trap)
                if trap.action == "kill":
                    process.kill()
                elif trap.action == "freeze":
                    process.freeze()
                return trap.action == "lose"
        return False

    def _break(self, connection: Connection, answer: asyncio.Future[Any]) -> None:
        self._fail(answer, KafkaConnectionError("the connection broke"))

    @staticmethod
    def _fail(answer: asyncio.Future[Any], error: KafkaError) -> None:
        if not answer.done():
            answer.set_exception(error)


async def persist(attempt: Callable[[], Coroutine[Any, Any, T]], backoff_seconds: float) -> T:
    """Repeats a request for as long as its error may pass, as aiokafka does."""
    while True:
        try:
            return await attempt()
        except KafkaError as error:
            if not error.retriable and not isinstance(error, ConcurrentTransactions):
                raise
            await asyncio.sleep(backoff_seconds)
