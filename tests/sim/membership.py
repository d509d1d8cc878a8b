"""A consumer's part in a group: join, sync, heartbeats, and the listener's calls around each change of hands.

Invariant: `on_partitions_revoked` has returned before the member joins again, and nothing is assigned until then. A listener that
raises stops nothing, as with aiokafka.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from aiokafka.errors import IllegalGenerationError, KafkaError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.sim.broker import Broker
from tests.sim.groups import Joined
from tests.sim.network import Connection, Network, persist

BACKOFF_SECONDS = 0.05


class Listener(Protocol):
    """aiokafka's ConsumerRebalanceListener; both may be coroutines or not."""

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> Awaitable[None] | None: ...
    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> Awaitable[None] | None: ...


class Membership:
    def __init__(
        self, network: Network, broker: Broker, group_id: str, client_id: str, session_ms: int, rebalance_ms: int
    ) -> None:
        self._network, self._broker, self._group_id, self._client_id = network, broker, group_id, client_id
        self._session_ms, self._rebalance_ms = session_ms, rebalance_ms
        self.connection = Connection()
        self._member_id, self._generation = "", -1
        self._rejoin = asyncio.Event()
        self._heart: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def subscribe(
        self, topics: Sequence[str], listener: Listener | None, assign: Callable[[Collection[TopicPartition] | None], None]
    ) -> None:
        """`assign` is told what the consumer has now; None while it changes."""
        self._rejoin.set()
        self._task = asyncio.create_task(self._belong(sorted(topics), listener, assign))

    def check(self) -> None:
        """Raises what ended the membership."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                raise error

    async def leave(self) -> None:
        for task in (self._task, self._heart):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._member_id:
            await self._network.request(
                self.connection, "LeaveGroup", lambda: self._broker.groups.leave(self._group_id, self._member_id)
            )

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        member_id, generation = self._member_id, self._generation
        await persist(
            lambda: self._network.request(
                self.connection,
                "OffsetCommit",
                lambda: self._broker.groups.commit(self._group_id, member_id, generation, offsets),
            ),
            BACKOFF_SECONDS,
        )

    async def _belong(
        self, topics: Sequence[str], listener: Listener | None, assign: Callable[[Collection[TopicPartition] | None], None]
    ) -> None:
        assigned: Collection[TopicPartition] = frozenset()
        while True:
            await self._rejoin.wait()
            assign(None)
            if listener is not None:
                await _told(listener.on_partitions_revoked, assigned)
            assigned = await self._joined(topics)
            assign(assigned)
            if listener is not None:
                await _told(listener.on_partitions_assigned, assigned)

    async def _joined(self, topics: Sequence[str]) -> Collection[TopicPartition]:
        """Joins until it is told what it has."""
        while True:
            if self._heart is not None:
                self._heart.cancel()
            self._rejoin.clear()
            try:
                assigned = await self._join(topics)
            except (UnknownMemberIdError, IllegalGenerationError):
                self._member_id, self._generation = "", -1
            except RebalanceInProgressError:
                pass
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(BACKOFF_SECONDS)
            else:
                self._heart = asyncio.create_task(self._beat())
                return frozenset(assigned)

    async def _join(self, topics: Sequence[str]) -> Sequence[TopicPartition]:
        member_id, groups = self._member_id, self._broker.groups
        joined: Joined = await self._network.request(
            self.connection,
            "JoinGroup",
            lambda: groups.join(self._group_id, member_id, self._client_id, topics, self._session_ms, self._rebalance_ms),
            timeout_seconds=self._rebalance_ms / 1000 + 5,
        )
        self._member_id, self._generation = joined.member_id, joined.generation
        plan = self._round_robin(joined.members) if joined.leader == joined.member_id else None
        assigned: Sequence[TopicPartition] = await self._network.request(
            self.connection,
            "SyncGroup",
            lambda: groups.sync(self._group_id, joined.member_id, joined.generation, plan),
            timeout_seconds=self._rebalance_ms / 1000 + 5,
        )
        return assigned

    def _round_robin(self, members: Mapping[str, Sequence[str]]) -> dict[str, list[TopicPartition]]:
        topics = sorted({topic for of in members.values() for topic in of})
        turn, plan = itertools.cycle(sorted(members)), {name: list[TopicPartition]() for name in members}
        for topic in topics:
            for log in self._broker.topics.get(topic, ()):
                plan[next(name for name in turn if topic in members[name])].append(log.tp)
        return plan

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._session_ms / 5 / 1000)
            member_id, generation = self._member_id, self._generation
            try:
                await self._network.request(
                    self.connection,
                    "Heartbeat",
                    lambda: self._broker.groups.heartbeat(self._group_id, member_id, generation),  # noqa: B023
                )
            except RebalanceInProgressError:
                self._rejoin.set()
            except (UnknownMemberIdError, IllegalGenerationError):
                self._member_id, self._generation = "", -1
                self._rejoin.set()
                return
            except KafkaError:
                continue  # the next one, perhaps; the group will say if it was too late


async def _told(
    say: Callable[[Collection[TopicPartition]], Awaitable[None] | None], partitions: Collection[TopicPartition]
) -> None:
    try:
        told = say(partitions)
        if told is not None:
            await told
    except Exception as error:  # noqa: BLE001  # aiokafka logs it and goes on
        asyncio.get_running_loop().call_exception_handler({"message": "rebalance listener", "exception": error})
