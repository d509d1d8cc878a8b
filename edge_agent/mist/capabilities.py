"""`capabilities`: what this MistServer can do, and so which one it is (CONTRACT 6.4 and 8).

222 kB: asked for once per start of the server, never in a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from edge_agent.mist.reading import part

COMMAND: Final[Mapping[str, object]] = {"capabilities": True}
FORK_TRIGGERS: Final = frozenset(
    {
        "STREAM_PROCESS",
        "PUSH_INPUT_CLOSE",
        "RECORDING_SEGMENT",
        "PROCESS_EXIT",
        "LIVEPEER_SEGMENT_COMPLETE",
        "PROCESS_AV_VIRTUAL_SEGMENT_COMPLETE",
        "THUMBNAIL_UPDATED",
    }
)


class Capabilities(msgspec.Struct, frozen=True):
    connectors: dict[str, object] = {}
    inputs: dict[str, object] = {}
    processes: dict[str, object] = {}
    triggers: dict[str, object] = {}
    threads: int = 0

    @property
    def is_fork(self) -> bool:
        """The fork names triggers that stock MistServer does not have."""
        return bool(FORK_TRIGGERS & self.triggers.keys())


def read(answer: Mapping[str, object]) -> Capabilities:
    """Raises Transient."""
    return part(answer, "capabilities", Capabilities)
