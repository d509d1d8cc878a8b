"""When something that is no longer seen is gone, and when something that nobody told of is there.

Invariant: neither is concluded from one look, nor from time alone. What is gone was missed at several looks in a row for a
while by a clock that never jumps, and looking was not interrupted meanwhile; what is there was seen just as steadily, and for
longer than the media server lists what has ended.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.mist.clients import Client
from edge_agent.mist.push_list import PushStatus
from edge_agent.node_state import Figures

GONE_MS: Final = 45_000  # MistServer keeps sessions for 15 s, lists them 5 s late and begins anew after a crash for 10 s
GONE_LOOKS: Final = 4
THERE_MS: Final = 12_000  # a session that ended stays listed for 6 s
THERE_LOOKS: Final = 4
KEEP_MS: Final = 60_000  # so often the last figures of what is open are put on the disk
GAP_MS: Final = 30_000  # no look for so long: what was missed before says nothing any more


@dataclass(slots=True)
class Watch:
    """What is open here and looked for there."""

    seen_ms: int  # elapsed; or since when it is looked for
    seen_at_ms: int | None = None  # on the wall; None: it was never seen
    missed: int = 0
    client: Client | None = None  # as it was listed last; of 10,000 only what is asked for becomes figures
    known: Figures | None = None
    before_seconds: int | None = None  # of its session at the look before
    status: PushStatus | None = None  # of a push
    kept_ms: int = 0  # elapsed, when its figures were last put on the disk

    @property
    def figures(self) -> Figures | None:
        client, seen_ms = self.client, self.seen_at_ms or 0
        if client:
            return Figures(client.conntime, client.up, client.down, seen_ms)
        return replace(self.known, seen_ms=seen_ms) if self.known else None


@dataclass(slots=True)
class Stranger:
    """What is there and was never told."""

    first_ms: int
    last_ms: int
    looks: int
    first_seconds: int
    seconds: int


class Presence:
    """Of all that is open or strange, by a key of the caller's."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}
        self._strangers: dict[str, Stranger] = {}
        self._last_ms: int | None = None

    def begin(self, elapsed_ms: int, *, is_new_server: bool, gap_ms: int = GAP_MS) -> None:
        """A look begins. After an interruption, or another start of the server, absence is counted anew."""
        if self._last_ms is not None and (is_new_server or elapsed_ms - self._last_ms > gap_ms):
            for watch in self._watches.values():
                watch.seen_ms, watch.missed = elapsed_ms, 0
            self._strangers.clear()
        self._last_ms = elapsed_ms

    def seen(self, key: str, elapsed_ms: int, at_ms: int, client: Client | None = None, known: Figures | None = None) -> Watch:
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = Watch(elapsed_ms, kept_ms=elapsed_ms)
        watch.before_seconds = watch.client.conntime if watch.client else None
        watch.seen_ms, watch.seen_at_ms, watch.missed = elapsed_ms, at_ms, 0
        watch.client, watch.known = client, known or watch.known
        return watch

    def missed(self, key: str, elapsed_ms: int) -> Watch | None:
        """Gives what is known of it if it is gone."""
        watch = self._watches.get(key)
        if watch is None:
            self._watches[key] = Watch(elapsed_ms, kept_ms=elapsed_ms)
            return None
        watch.missed += 1
        is_gone = watch.missed >= GONE_LOOKS and elapsed_ms - watch.seen_ms >= GONE_MS
        return watch if is_gone else None

    def strange(self, key: str, elapsed_ms: int, seconds: int, *, is_steady: bool) -> Stranger | None:
        """Gives what is known of it if it is there to stay: seen long enough, while its own seconds went on.

        `is_steady`: they must have gone on at every look. Those of a viewer who fetches a piece now and then need not; but a
        publisher's session stays listed for 20 s after it left, and stands still.
        """
        known = self._strangers.get(key)
        if known is None or seconds < known.seconds or (is_steady and seconds == known.seconds):
            self._strangers[key] = Stranger(elapsed_ms, elapsed_ms, 1, seconds, seconds)
            return None
        known.last_ms, known.looks, known.seconds = elapsed_ms, known.looks + 1, seconds
        is_there = known.looks >= THERE_LOOKS and elapsed_ms - known.first_ms >= THERE_MS and seconds > known.first_seconds
        return known if is_there else None

    def keep(self, watched: Container[str], strange: Container[str]) -> None:
        """A look ends: what was neither looked for nor seen is forgotten."""
        self._watches = {key: watch for key, watch in self._watches.items() if key in watched}
        self._strangers = {key: stranger for key, stranger in self._strangers.items() if key in strange}

    def last_of(self, key: str) -> Watch | None:
        return self._watches.get(key)
