"""`push_list`: pushes and recordings that run (CONTRACT 6.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from edge_agent.mist.reading import part

COMMAND: Final[Mapping[str, object]] = {"push_list": True}


class PushStatus(msgspec.Struct, frozen=True):
    """Of the last five seconds."""

    active_seconds: int | None = None
    bytes: int | None = None
    media_tx: int | None = None  # milliseconds of media sent


class RunningPush(msgspec.Struct, frozen=True, array_like=True):
    """The order is that of the answer."""

    pid: int
    stream: str
    target: str  # as asked
    target_used: str
    log: list[object] | None = None
    status: PushStatus | None = None


def read(answer: Mapping[str, object]) -> tuple[RunningPush, ...]:
    """Raises Transient."""
    return part(answer, "push_list", tuple[RunningPush, ...] | None) or ()  # type: ignore[arg-type]  # a union is no type
