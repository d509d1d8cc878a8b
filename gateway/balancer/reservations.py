"""Virtual viewers: who was sent to a node and has not come yet counts there already.

Invariants: a reservation ends once, whichever comes first: nobody came for 30 s; or somebody joined that stream on that node and
the node's own numbers are newer than that. Between the join and those numbers it goes on counting, else the viewer would count
nowhere. A join that nobody waits for, or that is heard of twice, ends nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

EXPIRE_MS: Final = 30_000
SAMPLE_MARGIN_MS: Final = 1000
"""Numbers of the moment of the join may not have it yet."""
MOST: Final = 200_000
Stream = tuple[UUID, UUID]  # tenant, stream


@dataclass(slots=True, eq=False)
class Reservation:
    node_id: str
    stream: Stream
    bytes_per_second: int
    until_ms: int
    joined_ms: int | None = None
    is_over: bool = False


class Reservations:
    """All reservations of a gateway. `changed` is told how much bandwidth of a node is spoken for more, or less."""

    def __init__(self, changed: Callable[[str, int], None] = lambda *_: None) -> None:
        self.changed = changed
        self._waiting: dict[tuple[str, Stream], deque[Reservation]] = {}
        self._by_time: deque[Reservation] = deque()
        self._joined: dict[str, deque[Reservation]] = {}
        self._viewings: OrderedDict[UUID, int] = OrderedDict()
        self._bytes: dict[str, int] = {}
        self._viewers: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(self._viewers.values())

    def bytes_per_second(self, node_id: str) -> int:
        return self._bytes.get(node_id, 0)

    def viewers(self, node_id: str) -> int:
        return self._viewers.get(node_id, 0)

    def reserve(self, node_id: str, stream: Stream, bytes_per_second: int, now_ms: int) -> None:
        """Somebody was sent there."""
        if len(self._by_time) >= MOST:  # more than can be true: the oldest go
            self._end(self._by_time.popleft())
        made = Reservation(node_id, stream, bytes_per_second, now_ms + EXPIRE_MS)
        self._by_time.append(made)
        self._waiting.setdefault((node_id, stream), deque()).append(made)
        self._count(made, 1)

    def joined(self, node_id: str, stream: Stream, viewing_id: UUID, at_ms: int) -> bool:
        """A viewer joined. Whether somebody had been sent: the one who waits longest, for nobody can tell them apart."""
        if viewing_id in self._viewings:
            return False
        self._viewings[viewing_id] = at_ms
        waiting = self._waiting.get((node_id, stream))
        while waiting:
            found = waiting.popleft()
            if not found.is_over:
                found.joined_ms = at_ms
                self._joined.setdefault(node_id, deque()).append(found)
                self._forget_if_empty(found)
                return True
        return False

    def sampled(self, node_id: str, sampled_ms: int) -> None:
        """The node's numbers are of then: who had joined before is in them."""
        joined = self._joined.get(node_id)
        while joined and (joined[0].joined_ms or 0) + SAMPLE_MARGIN_MS <= sampled_ms:
            self._end(joined.popleft())
        if joined is not None and not joined:
            del self._joined[node_id]

    def expire(self, now_ms: int) -> int:
        """Ends what is old; for how many of them nobody came."""
        nobody = 0
        while self._by_time and self._by_time[0].until_ms <= now_ms:
            oldest = self._by_time.popleft()
            nobody += oldest.joined_ms is None and not oldest.is_over
            self._end(oldest)
        while self._viewings and next(iter(self._viewings.values())) <= now_ms - 2 * EXPIRE_MS:
            self._viewings.popitem(last=False)
        return nobody

    def _end(self, reservation: Reservation) -> None:
        if reservation.is_over:
            return
        reservation.is_over = True
        self._count(reservation, -1)
        self._forget_if_empty(reservation)

    def _forget_if_empty(self, reservation: Reservation) -> None:
        key = reservation.node_id, reservation.stream
        waiting = self._waiting.get(key)
        while waiting and waiting[0].is_over:
            waiting.popleft()
        if waiting is not None and not waiting:
            del self._waiting[key]

    def _count(self, reservation: Reservation, sign: int) -> None:
        node_id, change = reservation.node_id, sign * reservation.bytes_per_second
        self._bytes[node_id] = self._bytes.get(node_id, 0) + change
        self._viewers[node_id] = self._viewers.get(node_id, 0) + sign
        if not self._viewers[node_id]:
            del self._viewers[node_id], self._bytes[node_id]
        self.changed(node_id, change)
