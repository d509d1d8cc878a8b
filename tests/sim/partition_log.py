"""One partition of a topic as a broker keeps it.

Invariant: offsets have no holes that the broker made itself: a record, or a commit or abort marker, stands at each, until the
log's start moves past it. Nothing from the first record of an open transaction on is stable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka.errors import InvalidProducerEpoch, OffsetOutOfRangeError, OutOfOrderSequenceNumber
from aiokafka.structs import TopicPartition

Headers = Sequence[tuple[str, bytes]]
BATCHES_REMEMBERED: Final = 5


@dataclass(frozen=True, slots=True)
class Message:
    """What a producer sends."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None

    @property
    def size_bytes(self) -> int:
        return 20 + len(self.key or b"") + len(self.value or b"") + sum(len(n) + len(v) + 4 for n, v in self.headers)


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at an offset. `marker` is that of a control record: whether it commits."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    producer_id: int = -1
    marker: bool | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """Who appends: an idempotent producer with the sequence number of its first message here."""

    producer_id: int
    epoch: int
    sequence: int
    is_transactional: bool = False


@dataclass(frozen=True, slots=True)
class Aborted:
    producer_id: int
    first: int
    marker: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """Entries with the markers between them, and the aborted transactions that touch them."""

    entries: Sequence[Entry]
    aborted: Sequence[Aborted]
    end: int
    stable_end: int


@dataclass(slots=True)
class _Producer:
    """What a partition remembers of a producer."""

    epoch: int
    next_sequence: int = 0
    batches: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=BATCHES_REMEMBERED))
    transaction_first: int | None = None


class PartitionLog:
    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.start = 0
        self._entries: list[Entry] = []  # from `start` on
        self._producers: dict[int, _Producer] = {}
        self._aborted: list[Aborted] = []

    @property
    def end(self) -> int:
        return self.start + len(self._entries)

    @property
    def stable_end(self) -> int:
        """Where a committed reader has to stop."""
        open_since = [p.transaction_first for p in self._producers.values() if p.transaction_first is not None]
        return min(open_since, default=self.end)

    def append(self, messages: Sequence[Message], now_ms: int, sender: Sender | None = None) -> int:
        """Offset of the first message; that of the first time, when the same was appended before. Raises KafkaError."""
        if sender is not None:
            known = self._producers.get(sender.producer_id)
            if (again := self._again(known, sender, len(messages))) is not None:
                return again
        first = self.end
        producer_id = -1 if sender is None else sender.producer_id
        for message in messages:
            timestamp_ms = now_ms if message.timestamp_ms is None else message.timestamp_ms
            self._entries.append(Entry(self.end, timestamp_ms, message.key, message.value, tuple(message.headers), producer_id))
        if sender is not None:
            producer = self._producers.setdefault(sender.producer_id, _Producer(sender.epoch))
            producer.epoch = sender.epoch
            producer.next_sequence = sender.sequence + len(messages)
            producer.batches.append((sender.sequence, len(messages), first))
            if sender.is_transactional and producer.transaction_first is None:
                producer.transaction_first = first
        return first

    def _again(self, known: _Producer | None, sender: Sender, count: int) -> int | None:
        """Offset at which these messages stand already. Raises what is wrong with their place in the sequence."""
        if known is None:
            return None  # a log may have forgotten a producer: any sequence begins it anew
        if sender.epoch < known.epoch:
            raise InvalidProducerEpoch()
        if sender.epoch > known.epoch:
            known.batches.clear()
            known.next_sequence = 0
        for sequence, length, offset in known.batches:
            if (sequence, length) == (sender.sequence, count):
                return offset
        if sender.sequence != known.next_sequence:
            raise OutOfOrderSequenceNumber()
        return None

    def mark(self, producer_id: int, epoch: int, commits: bool, now_ms: int) -> None:
        """Ends a producer's transaction here, and fences its older epochs."""
        producer = self._producers.setdefault(producer_id, _Producer(epoch))
        if epoch > producer.epoch:
            producer.epoch, producer.next_sequence = epoch, 0
            producer.batches.clear()
        if producer.transaction_first is not None and not commits:
            self._aborted.append(Aborted(producer_id, producer.transaction_first, self.end))
        producer.transaction_first = None
        self._entries.append(Entry(self.end, now_ms, None, None, (), producer_id, marker=commits))

    def fetch(self, offset: int, committed: bool, max_bytes: int) -> Fetched:
        """What stands from an offset on: at least one entry where there is one. Raises OffsetOutOfRangeError."""
        if not self.start <= offset <= self.end:
            raise OffsetOutOfRangeError({self.tp: offset})
        stop, size = self.stable_end if committed else self.end, 0
        entries: list[Entry] = []
        for entry in self._entries[offset - self.start : max(0, stop - self.start)]:
            size += 60 + len(entry.key or b"") + len(entry.value or b"")
            if entries and size > max_bytes:
                break
            entries.append(entry)
        aborted = [a for a in self._aborted if a.marker >= offset] if committed else []
        return Fetched(entries, aborted, self.end, self.stable_end)

    def delete_before(self, offset: int) -> None:
        """The log begins there from now on, if it has come so far."""
        if offset == -1:
            offset = self.end
        if offset > self.end:
            raise OffsetOutOfRangeError({self.tp: offset})
        if offset > self.start:
            del self._entries[: offset - self.start]
            self.start = offset

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record that is not older; None: all are."""
        return next(
            ((e.offset, e.timestamp_ms) for e in self._entries if e.marker is None and e.timestamp_ms >= timestamp_ms), None
        )

    def read(self, committed: bool = True) -> list[Entry]:
        """The records as a reader gets them: no markers; a committed reader nothing aborted and nothing unstable."""
        return visible(self.fetch(self.start, committed, 1 << 62))


def visible(fetched: Fetched) -> list[Entry]:
    """Of what was fetched, what is no marker and not aborted: the reader's side of a transaction."""
    if not fetched.aborted:
        return [entry for entry in fetched.entries if entry.marker is None]
    of: dict[int, list[Aborted]] = {}
    for aborted in fetched.aborted:
        of.setdefault(aborted.producer_id, []).append(aborted)
    return [
        entry
        for entry in fetched.entries
        if entry.marker is None and not any(a.first <= entry.offset < a.marker for a in of.get(entry.producer_id, ()))
    ]
