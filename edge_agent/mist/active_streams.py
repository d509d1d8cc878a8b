"""`active_streams`: what is on the air, and who feeds it (CONTRACT 6.4).

A stream stands here while any session of the last 15 seconds was its; `status` is right at once, the counts are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from edge_agent.mist.reading import part

ONLINE: Final = "Online"
FIELDS: Final = ("status", "viewers", "inputs", "outputs", "lastms", "sourcepids", "upbytes", "downbytes")
COMMAND: Final[Mapping[str, object]] = {"active_streams": {"longform": True, "fields": list(FIELDS)}}


class ActiveStream(msgspec.Struct, frozen=True):
    status: str = ""
    viewers: int = 0  # 15 s behind
    inputs: int = 0
    outputs: int = 0
    lastms: int = 0
    sourcepids: tuple[int, ...] | None = None
    upbytes: int = 0
    downbytes: int = 0

    @property
    def is_online(self) -> bool:
        return self.status == ONLINE


def read(answer: Mapping[str, object]) -> Mapping[str, ActiveStream]:
    """By name. Raises Transient."""
    return part(answer, "active_streams", dict[str, ActiveStream] | None) or {}  # type: ignore[arg-type]  # a union is no type
