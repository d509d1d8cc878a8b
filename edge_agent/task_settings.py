"""What the operator says about tasks: where recordings go, which targets may be, how long a node is left to its guests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from streams.settings import Reader

GRACE_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class TaskSettings:
    recordings_dir: str | None = None  # as the media server sees it; None: nothing is recorded here
    allows_private_pushes: bool = False  # push targets may be in a private network
    maintenance_grace_seconds: int = GRACE_SECONDS  # before what runs is stopped


def read_task_settings(reader: Reader) -> TaskSettings:
    """What is wrong is noted in the reader."""
    directory = reader.env.get("FW_EDGE_RECORDINGS_DIR") or None
    if directory and (not PurePosixPath(directory).is_absolute() or "$" in directory or "?" in directory or "\n" in directory):
        reader.problems.append(f"FW_EDGE_RECORDINGS_DIR must be an absolute path without $ and ?, not {directory!r}")
    return TaskSettings(
        recordings_dir=directory.rstrip("/") if directory else None,
        allows_private_pushes=reader.is_set("FW_EDGE_PRIVATE_PUSH_TARGETS"),
        maintenance_grace_seconds=reader.number("FW_EDGE_MAINTENANCE_GRACE_SECONDS", GRACE_SECONDS, 0, 7 * 86_400),
    )
