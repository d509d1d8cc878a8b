"""Which stream a name is: asked of the database once, and remembered for some seconds."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from projections import routing
from projections.model import Database
from projections.routing import StreamName

KNOWN_SECONDS: Final = 15.0
UNKNOWN_SECONDS: Final = 1.0
REMEMBERED: Final = 20_000
MEDIA_PREFIX: Final = "live+"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
Find = Callable[[Database, str], Awaitable[StreamName | None]]


class Names:
    """Streams by what they are called: `live+<internal name>` on media servers, the playback id for viewers."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._seen: OrderedDict[str, tuple[float, StreamName | None]] = OrderedDict()

    async def find(self, name: str) -> StreamName | None:
        """The stream of either name; None where there is none, or it was deleted."""
        plain = name.removeprefix(MEDIA_PREFIX)
        if not _NAME.fullmatch(plain):  # nothing is called so, and nobody has to be asked
            return None
        found = self._seen.get(name)
        if found is not None and found[0] > self._clock():
            return found[1]
        find: Find = routing.stream_by_internal_name if plain != name else routing.stream_by_playback_id
        stream = await find(self._database, plain)
        self._seen[name] = self._clock() + (UNKNOWN_SECONDS if stream is None else KNOWN_SECONDS), stream
        self._seen.move_to_end(name)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return stream
