"""Which media server this is, and how it is set up: read in one call, its abilities once for each start of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.mist import capabilities, config
from edge_agent.mist.api import MistApi
from edge_agent.mist.capabilities import Capabilities
from edge_agent.mist.plan import Observed
from edge_agent.mist.reading import part

COMMANDS: Final[Mapping[str, object]] = {**config.COMMAND, "streams": True, "bandwidth": True}
TESTED: Final = "3.10"
TESTED_FORK: Final = ("3.10", "v0.3.")  # as it is tagged, or as whoever builds it names it


@dataclass(frozen=True, slots=True)
class Server:
    """What it says of itself. `version`: `3.10 Generic_x86_64`."""

    version: str
    instance: str
    name: str
    is_fork: bool
    connectors: Sequence[str]
    processors: int

    @property
    def is_known_version(self) -> bool:
        return self.version.startswith(TESTED_FORK if self.is_fork else TESTED)


class Reader:
    """Reads it, and remembers what only a start of the server changes."""

    def __init__(self, api: MistApi) -> None:
        self._api = api
        self._abilities: tuple[str, Capabilities] | None = None  # by instance

    async def read(self) -> tuple[Server, Observed]:
        """Raises Transient, Rejected."""
        answer = await self._api.call(COMMANDS)
        found = config.read(answer)
        if self._abilities is None or self._abilities[0] != found.iid:
            self._abilities = found.iid, capabilities.read(await self._api.call(capabilities.COMMAND))
        abilities = self._abilities[1]
        server = Server(
            version=found.version,
            instance=found.iid,
            name=found.serverid or "",
            is_fork=abilities.is_fork,
            connectors=tuple(sorted(abilities.connectors)),
            processors=abilities.threads,
        )
        streams = configured_streams(answer)
        bandwidth = answer.get("bandwidth")
        exceptions = bandwidth.get("exceptions") if isinstance(bandwidth, dict) else None
        listed = tuple(map(str, exceptions)) if isinstance(exceptions, list) else ()
        return server, Observed(found, streams, listed, abilities.is_fork)


def configured_streams(answer: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """The table of streams: a server that has none yet says null. Raises Transient."""
    table = part(answer, "streams", dict[str, object] | None) or {}  # type: ignore[arg-type]  # a union is no type
    return {name: fields for name, fields in table.items() if isinstance(fields, dict)}
