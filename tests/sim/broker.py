"""A Kafka broker in memory: topics, and what a request does to them. All of it lasts; clients and connections come and go.

Invariant: whatever a request does it does at once or not at all, in the order of arrival. Errors are those that aiokafka makes of
a broker's codes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.sim.groups import Groups
from tests.sim.loop import BEGINNING, SimLoop
from tests.sim.network import Network
from tests.sim.partition_log import Fetched, Message, PartitionLog, Sender
from tests.sim.transactions import Transactions

EARLIEST, LATEST = -2, -1


class Broker:
    def __init__(self, loop: SimLoop, network: Network, session_floor_ms: int = 1000) -> None:
        self._loop, self._network = loop, network
        self._topics: dict[str, list[PartitionLog]] = {}
        self._message_max_bytes: dict[str, int] = {}
        self._fetching: dict[asyncio.Future[dict[TopicPartition, Fetched | KafkaError]], Callable[[], bool]] = {}
        self.groups = Groups(loop, network, session_floor_ms)
        self.transactions = Transactions(network, self.groups, self.partition, self.now_ms)
        self.transactions.on_stable = lambda _: self._look_again()

    def now_ms(self) -> int:
        return int((BEGINNING.timestamp() + self._loop.time()) * 1000)

    # what a test does behind the clients' backs

    def create_topic(self, name: str, partitions: int = 1, message_max_bytes: int = 2 << 20) -> None:
        self._topics[name] = [PartitionLog(TopicPartition(name, number)) for number in range(partitions)]
        self._message_max_bytes[name] = message_max_bytes

    def log(self, topic: str, partition: int) -> PartitionLog:
        return self._topics[topic][partition]

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Puts a record onto a log without any client; its offset."""
        offset = self.log(topic, partition).append([Message(key, value, tuple(headers), timestamp_ms)], self.now_ms())
        self._look_again()
        return offset

    def delete_records(self, tp: TopicPartition, before_offset: int) -> None:
        """What retention does: the log begins there from now on. -1: at its end."""
        self.partition(tp).delete_before(before_offset)
        self._look_again()

    @property
    def topics(self) -> Mapping[str, Sequence[PartitionLog]]:
        return self._topics

    # requests

    def partition(self, tp: TopicPartition) -> PartitionLog:
        logs = self._topics.get(tp.topic, ())
        if not 0 <= tp.partition < len(logs):
            raise UnknownTopicOrPartitionError()
        log: PartitionLog = logs[tp.partition]
        return log

    def produce(
        self, batches: Mapping[TopicPartition, Sequence[Message]], senders: Mapping[TopicPartition, Sender], owner: str | None
    ) -> dict[TopicPartition, int | KafkaError]:
        """First offset of each batch, or why it is not on the log. `owner`: the transactional id."""
        done: dict[TopicPartition, int | KafkaError] = {}
        for tp, messages in batches.items():
            try:
                done[tp] = self._append(tp, messages, senders[tp], owner)
            except KafkaError as error:
                done[tp] = error
        self._look_again()
        return done

    def _append(self, tp: TopicPartition, messages: Sequence[Message], sender: Sender, owner: str | None) -> int:
        log = self.partition(tp)
        if sum(m.size_bytes for m in messages) > self._message_max_bytes[tp.topic]:
            raise MessageSizeTooLargeError()
        if owner is not None:
            self.transactions.require_member(owner, sender.producer_id, sender.epoch, tp)
        return log.append(messages, self.now_ms(), sender)

    def fetch(
        self, positions: Mapping[TopicPartition, int], committed: bool, max_bytes: int, wait_seconds: float
    ) -> asyncio.Future[dict[TopicPartition, Fetched | KafkaError]]:
        """What stands from each position on; waits a while for something to stand there."""
        answer: asyncio.Future[dict[TopicPartition, Fetched | KafkaError]] = self._loop.create_future()

        def look(is_last: bool = False) -> bool:
            if answer.done():
                return True
            if not is_last and not any(self._has_news(tp, at, committed) for tp, at in positions.items()):
                return False
            answer.set_result({tp: self._fetched(tp, at, committed, max_bytes) for tp, at in positions.items()})
            return True

        if not look():
            self._fetching[answer] = look
            answer.add_done_callback(lambda _: self._fetching.pop(answer, None))
            self._network.at(wait_seconds, lambda: look(is_last=True))
        return answer

    def _has_news(self, tp: TopicPartition, position: int, committed: bool) -> bool:
        try:
            log = self.partition(tp)
        except UnknownTopicOrPartitionError:
            return True
        return not log.start <= position <= log.end or position < (log.stable_end if committed else log.end)

    def _fetched(self, tp: TopicPartition, position: int, committed: bool, max_bytes: int) -> Fetched | KafkaError:
        try:
            return self.partition(tp).fetch(position, committed, max_bytes)
        except KafkaError as error:
            return error

    def _look_again(self) -> None:
        for look in list(self._fetching.values()):
            look()

    def list_offsets(
        self, timestamps: Mapping[TopicPartition, int], committed: bool
    ) -> dict[TopicPartition, tuple[int, int] | None]:
        """(offset, timestamp) for each time; EARLIEST, LATEST: of the log's start and end."""
        out: dict[TopicPartition, tuple[int, int] | None] = {}
        for tp, timestamp_ms in timestamps.items():
            log = self.partition(tp)
            if timestamp_ms == EARLIEST:
                out[tp] = (log.start, -1)
            elif timestamp_ms == LATEST:
                out[tp] = (log.stable_end if committed else log.end, -1)
            else:
                out[tp] = log.offset_at(timestamp_ms)
        return out

    def committed(self, group_id: str, tps: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata | None]:
        offsets = self.groups.of(group_id).offsets
        return {tp: offsets.get(tp) for tp in tps}

    def init_producer(self, transactional_id: str | None, timeout_ms: int) -> tuple[int, int]:
        if transactional_id is None:
            return self.transactions.new_producer_id(), 0
        return self.transactions.init(transactional_id, timeout_ms)
