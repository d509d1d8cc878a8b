"""aiokafka's consumer, as much of it as the product uses, on the simulated network.

Invariant: a position is where the next record will come from; it also moves over markers and aborted records, and only when what
lay before it was handed out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from aiokafka.util import commit_structure_validate

from tests.sim.broker import EARLIEST, LATEST, Broker
from tests.sim.membership import BACKOFF_SECONDS, Listener, Membership
from tests.sim.network import Connection, Network, persist
from tests.sim.partition_log import Entry, Fetched, visible

FETCH_WAIT_SECONDS = 10.0
"""The broker holds a fetch for so long. Real clients ask again every 50 ms: many steps in which nothing happens."""


@dataclass(slots=True, eq=False)
class _Place:
    """Where a consumer stands on one partition; `ahead`: what it has fetched, up to `fetched`."""

    position: int | None = None
    fetched: int = 0
    ahead: list[Entry] = field(default_factory=list)
    is_paused: bool = False
    stable_end: int = -1
    end: int | None = None

    def seek(self, offset: int) -> None:
        self.position = self.fetched = offset
        self.ahead = []

    def take(self, at_most: int) -> list[Entry]:
        taken, self.ahead = self.ahead[:at_most], self.ahead[at_most:]
        self.position = taken[-1].offset + 1 if self.ahead else self.fetched
        return taken


class SimConsumer:
    def __init__(
        self,
        network: Network,
        broker: Broker,
        *,
        committed: bool,
        membership: Membership | None = None,
        group_id: str | None = None,
        from_earliest: bool = False,
        fetch_bytes: int = 4 << 20,
    ) -> None:
        self._network, self._broker, self._is_committed = network, broker, committed
        self._membership, self._group_id, self._from_earliest = membership, group_id, from_earliest
        self._fetch_bytes = fetch_bytes
        self._connection = Connection()
        self._places: dict[TopicPartition, _Place] = {}
        self._assigned = asyncio.Event()
        self._fetching: asyncio.Task[None] | None = None
        self._error: KafkaError | None = None
        self._is_closed = False

    # life

    async def start(self) -> None:
        """Raises KafkaConnectionError: the broker does not answer."""
        await self._network.request(self._connection, "Metadata", lambda: None)

    async def stop(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._drop_fetch()
        if self._membership is not None:
            await self._membership.leave()

    # what it reads

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._places = {tp: _Place() for tp in partitions}
        self._drop_fetch()

    def subscribe(self, topics: Sequence[str] = (), pattern: str | None = None, listener: Listener | None = None) -> None:
        assert self._membership is not None, "only a member of a group subscribes"
        assert pattern is None, "the product names its topics"
        self._membership.subscribe(topics, listener, self._reassign)

    def _reassign(self, partitions: Collection[TopicPartition] | None) -> None:
        self._drop_fetch()
        self._places = {} if partitions is None else {tp: _Place() for tp in sorted(partitions)}
        if partitions is None:
            self._assigned.clear()
        else:
            self._assigned.set()

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._places)

    def pause(self, *partitions: TopicPartition) -> None:
        for tp in partitions:
            self._place(tp).is_paused = True

    def resume(self, *partitions: TopicPartition) -> None:
        for tp in partitions:
            self._place(tp).is_paused = False
        self._drop_fetch()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._place(partition).seek(offset)
        self._drop_fetch()

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        for tp, offset in (await self.beginning_offsets(partitions or tuple(self._places))).items():
            self.seek(tp, offset)

    async def seek_to_end(self, *partitions: TopicPartition) -> None:
        for tp, offset in (await self.end_offsets(partitions or tuple(self._places))).items():
            self.seek(tp, offset)

    async def position(self, partition: TopicPartition) -> int:
        place = self._place(partition)
        if place.position is None:
            await self._find({partition: place})
        assert place.position is not None
        return place.position

    def highwater(self, partition: TopicPartition) -> int | None:
        return self._place(partition).end

    def last_stable_offset(self, partition: TopicPartition) -> int:
        return self._place(partition).stable_end

    def _place(self, tp: TopicPartition) -> _Place:
        if tp not in self._places:
            raise IllegalStateError(f"No current assignment for partition {tp}")
        return self._places[tp]

    # records

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Raises OffsetOutOfRangeError: a position is gone, and nobody said where to go on."""
        if self._is_closed:
            raise ConsumerStoppedError()
        if self._membership is not None:
            self._membership.check()
        try:
            async with asyncio.timeout(timeout_ms / 1000 if timeout_ms > 0 else None):
                while True:
                    if self._error is not None:
                        error, self._error = self._error, None
                        raise error
                    if out := self._taken(partitions, max_records or 1 << 30):
                        return out
                    self._fetch_ahead()
                    if timeout_ms == 0:
                        return {}
                    if self._fetching is not None:
                        fetching = self._fetching
                        await asyncio.wait([fetching])
                        if not fetching.cancelled():
                            fetching.result()
                    else:  # nothing to fetch: everything is paused, or nothing assigned yet
                        await asyncio.sleep(timeout_ms / 1000)
        except TimeoutError:
            return {}

    def _taken(self, only: Sequence[TopicPartition], at_most: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        out: dict[TopicPartition, list[ConsumerRecord]] = {}
        for tp, place in self._places.items():
            if place.ahead and not place.is_paused and at_most > 0 and (not only or tp in only):
                taken = place.take(at_most)
                out[tp] = [_record(tp, entry) for entry in taken]
                at_most -= len(taken)
        return out

    def _drop_fetch(self) -> None:
        """What is on its way was asked for from other positions."""
        if self._fetching is not None:
            self._fetching.cancel()
            self._fetching = None

    def _fetch_ahead(self) -> None:
        if self._fetching is None or self._fetching.done():
            wanted = {tp: place for tp, place in self._places.items() if not place.is_paused and not place.ahead}
            self._fetching = asyncio.create_task(self._fetch(wanted)) if wanted else None

    async def _fetch(self, wanted: dict[TopicPartition, _Place]) -> None:
        if missing := {tp: place for tp, place in wanted.items() if place.position is None}:
            await self._find(missing)
        positions = {tp: place.fetched for tp, place in wanted.items()}
        try:
            fetched: dict[TopicPartition, Fetched | KafkaError] = await self._network.request(
                self._connection,
                "Fetch",
                lambda: self._broker.fetch(positions, self._is_committed, self._fetch_bytes, FETCH_WAIT_SECONDS),
            )
        except KafkaError:
            await asyncio.sleep(BACKOFF_SECONDS)
            return
        for tp, result in fetched.items():
            if isinstance(result, Fetched):
                self._keep(wanted[tp], result)
            elif isinstance(result, OffsetOutOfRangeError):
                await self._out_of_range(tp, wanted[tp])
            else:
                await asyncio.sleep(BACKOFF_SECONDS)

    @staticmethod
    def _keep(place: _Place, result: Fetched) -> None:
        place.end, place.stable_end = result.end, result.stable_end
        if result.entries:
            place.ahead = visible(result)
            place.fetched = result.entries[-1].offset + 1
            if not place.ahead:
                place.position = place.fetched

    async def _out_of_range(self, tp: TopicPartition, place: _Place) -> None:
        if self._from_earliest:
            place.seek((await self.beginning_offsets([tp]))[tp])
        else:
            self._error = OffsetOutOfRangeError({tp: place.fetched})

    async def _find(self, places: Mapping[TopicPartition, _Place]) -> None:
        """Positions for partitions that nobody sought: where the group is, or the beginning."""
        for tp, place in places.items():
            offset = await self.committed(tp) if self._group_id is not None else None
            if offset is None:
                if not self._from_earliest:
                    raise IllegalStateError(f"{tp} has no position: seek it")
                offset = (await self.beginning_offsets([tp]))[tp]
            place.seek(offset)

    # offsets

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: found[0] for tp, found in (await self._list(dict.fromkeys(partitions, EARLIEST))).items() if found}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """For a committed reader the last stable offset."""
        return {tp: found[0] for tp, found in (await self._list(dict.fromkeys(partitions, LATEST))).items() if found}

    async def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        found = await self._list(dict(timestamps))
        return {tp: OffsetAndTimestamp(*at) if at is not None else None for tp, at in found.items()}

    async def _list(self, timestamps: dict[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int] | None]:
        return await persist(
            lambda: self._network.request(
                self._connection, "ListOffsets", lambda: self._broker.list_offsets(timestamps, self._is_committed)
            ),
            BACKOFF_SECONDS,
        )

    async def committed(self, partition: TopicPartition) -> int | None:
        group_id = self._group_id
        assert group_id is not None, "only a group has committed positions"
        found = await persist(
            lambda: self._network.request(self._connection, "OffsetFetch", lambda: self._broker.committed(group_id, [partition])),
            BACKOFF_SECONDS,
        )
        of = found[partition]
        return None if of is None else int(of.offset)

    async def commit(self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata]) -> None:
        """Raises CommitFailedError: another generation has the partitions."""
        assert self._membership is not None, "only a member of a group commits"
        try:
            await self._membership.commit(commit_structure_validate(offsets))
        except (IllegalGenerationError, UnknownMemberIdError, RebalanceInProgressError) as error:
            raise CommitFailedError(str(error)) from error


def _record(tp: TopicPartition, entry: Entry) -> ConsumerRecord:
    return ConsumerRecord(
        topic=tp.topic,
        partition=tp.partition,
        offset=entry.offset,
        timestamp=entry.timestamp_ms,
        timestamp_type=0,
        key=entry.key,
        value=entry.value,
        checksum=None,
        serialized_key_size=len(entry.key) if entry.key is not None else -1,
        serialized_value_size=len(entry.value) if entry.value is not None else -1,
        headers=tuple(entry.headers),
    )
