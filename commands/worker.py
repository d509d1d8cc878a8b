"""The command worker: a member of a consumer group that runs a single writer for each partition it is given.

Invariant: nothing outlives a life. A life begins with joining the group and ends with the first error of any partition; then
every producer, reader and state is dropped, and a new life begins from nothing. The group proposes who writes; the fence
and the order of steps in `Partition.run` are the guarantee.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition, errors
from aiokafka.errors import InvalidSessionTimeoutError, KafkaError

from commands import metrics
from commands.cluster import require_topics
from commands.partition import Clock, Partition, utc_now
from streams import telemetry
from streams.errors import Transient
from streams.kafka import Cluster, stopped
from streams.topics import Topics

log = telemetry.log(__name__)

SESSION_MS: Final = 3000  # how long a worker that was killed keeps its partitions
SESSION_FLOOR_MS: Final = 6000  # brokers refuse shorter ones unless told otherwise
LONG_LIFE_SECONDS: Final = 30.0
BACKOFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
INCURABLE: Final = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
    errors.IncompatibleBrokerVersion,
    errors.MessageSizeTooLargeError,
)
"""Of the broker's errors, those that the next life would meet again. Any other may pass with the network, with a broker that
restarts, with a transactional id that expired in a silent week, or with another writer who took over."""


class CommandWorker:
    """Runs lives until `stop`."""

    def __init__(self, cluster: Cluster, topics: Topics, clock: Clock = utc_now) -> None:
        self._cluster, self._topics, self._clock = cluster, topics, clock
        self._group_id = f"{topics.prefix}commands"
        self._session_ms = SESSION_MS
        self._stopping = asyncio.Event()
        self._membership: Membership | None = None

    @property
    def is_ready(self) -> bool:
        """Whether every partition that this worker was given is folded."""
        return self._membership is not None and self._membership.is_ready

    @property
    def partitions(self) -> Collection[Partition]:
        """Those that it was given in this life, folded or not."""
        return self._membership.partitions if self._membership is not None else ()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Lives until stopped. Raises what no new life can cure: a broken log, a refused permission, a bug."""
        failures = 0
        while not self._stopping.is_set():
            born = asyncio.get_running_loop().time()
            try:
                await self._live()
            except InvalidSessionTimeoutError:
                if self._session_ms == SESSION_FLOOR_MS:
                    raise
                self._session_ms = SESSION_FLOOR_MS
            except (KafkaError, OSError, Transient) as error:
                if isinstance(error, INCURABLE):
                    raise
                failures = 1 if asyncio.get_running_loop().time() - born > LONG_LIFE_SECONDS else failures + 1
                pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
                metrics.restarts.labels(type(error).__name__).inc()
                log.warning("begins again", reason=repr(error), pause_seconds=pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
            finally:
                self._membership = None

    async def _live(self) -> None:
        await require_topics(self._cluster, self._topics)
        # It tells offsets and assignments and never fetches: each partition has a reader of its own, because one reader's
        # long poll on eleven silent partitions would delay a command on the twelfth until it ends.
        group = self._cluster.member(self._group_id, self._session_ms)
        membership = self._membership = Membership(self._cluster, self._topics, group, self._group_id, self._clock)
        try:
            await group.start()
            group.subscribe([self._topics.commands.name], listener=membership)
            stopping = asyncio.ensure_future(self._stopping.wait())
            polling = asyncio.ensure_future(_poll(group))
            try:
                await asyncio.wait((stopping, polling, membership.failed), return_when=asyncio.FIRST_COMPLETED)
                for ended in (membership.failed, polling):
                    if ended.done():
                        ended.result()
            finally:
                stopping.cancel()
                polling.cancel()
        finally:
            await membership.end()
            await stopped(group, 5)


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """The partitions of one life. Kafka may take all of them and give others at any time."""

    def __init__(self, cluster: Cluster, topics: Topics, group: AIOKafkaConsumer, group_id: str, clock: Clock) -> None:
        self._cluster, self._topics, self._group, self._group_id, self._clock = cluster, topics, group, group_id, clock
        self._running: dict[Partition, asyncio.Task[None]] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def partitions(self) -> Collection[Partition]:
        return tuple(self._running or ())

    @property
    def is_ready(self) -> bool:
        return self._running is not None and all(p.is_ready for p in self._running)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Stops writing before the next owner starts; where this is too slow, the fence stops it."""
        if revoked:
            log.info("partitions given back", partitions=sorted(tp.partition for tp in revoked))
        await self.end()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._group.pause(*assigned)
        self._running = {}
        for tp in sorted(assigned):
            partition = Partition(self._cluster, self._topics, self._group, self._group_id, tp.partition, self._clock)
            task = asyncio.create_task(partition.run(), name=f"decide-{tp.partition}")
            task.add_done_callback(self._ended)
            self._running[partition] = task

    async def end(self) -> None:
        """Lets the transactions in hand end and stops everything."""
        tasks = list((self._running or {}).values())
        self._running = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.failed.done():
            self.failed.set_exception(task.exception() or RuntimeError(f"{task.get_name()} ended"))


async def _poll(group: AIOKafkaConsumer) -> None:
    """Keeps the membership alive, and raises what goes wrong with it. Every partition is paused, so nothing comes."""
    while True:
        await group.getmany(timeout_ms=1000)
