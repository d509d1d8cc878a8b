"""`clients`: the sessions that MistServer counts, of viewers, publishers and pushes (CONTRACT 6.4).

Asked for five seconds ago: without a time it answers for ten minutes ago, and the last second may miss publishers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from edge_agent.mist.reading import part
from streams.errors import Transient

SECONDS_AGO: Final = 5
COMMAND: Final[Mapping[str, object]] = {"clients": {"time": -SECONDS_AGO}}


class Client(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One session. The order is that of the answer."""

    host: str  # `::` for a file
    stream: str
    protocol: str  # HLS, INPUT:RTMP, OUTPUT:EBML, …
    conntime: int  # seconds
    position: int
    down: int  # bytes received
    up: int  # bytes sent
    downbps: int
    upbps: int
    sessid: str
    pktcount: int
    pktlost: int
    pktretransmit: int

    @property
    def is_viewer(self) -> bool:
        """By the prefix of its id: none is a viewer's, `I`, `O` and `U` are of the others. A plain id is 64 hex digits."""
        return self.sessid[:1] not in ("I", "O", "U")

    @property
    def is_input(self) -> bool:
        return self.sessid.startswith("I")


class Clients(msgspec.Struct, frozen=True):
    """All sessions at one second."""

    time: int  # unix seconds, MistServer's clock
    rows: tuple[Client, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    time: int
    fields: tuple[str, ...]
    data: list[list[object]] | None = None


_FIELDS: Final = Client.__struct_fields__


def read(answer: Mapping[str, object]) -> Clients:
    """Raises Transient."""
    found = part(answer, "clients", _Answer)
    rows: Sequence[Sequence[object]] = found.data or ()
    if rows and found.fields != _FIELDS:
        try:
            places = [found.fields.index(name) for name in _FIELDS]
        except ValueError:
            raise Transient(f"MistServer lists clients with the fields {', '.join(found.fields)}") from None
        rows = [[row[place] for place in places] for row in rows]
    try:
        return Clients(found.time, msgspec.convert(rows, tuple[Client, ...], strict=False))
    except msgspec.ValidationError as error:
        raise Transient(f"MistServer lists a client that is shaped otherwise than expected: {error}") from None
