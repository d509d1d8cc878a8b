"""Triggers that real MistServers sent, recorded: one JSON object per line, in the order of their arrival.

Invariant: the files are as they were recorded. A line has `t` (seconds since the first request), `trigger`, `headers`, `body`
and `answer` (what the recording server said); `NAME.actions.jsonl` beside it tells what was done to the media server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


class NoRecording(Exception):
    """A sentence that says what is wrong with the file."""


@dataclass(frozen=True, slots=True)
class RecordedTrigger:
    at_seconds: float
    name: str
    headers: Mapping[str, str]
    body: str
    answer: str

    @property
    def pid(self) -> str:
        return self.headers.get("X-PID", "")


def names() -> Sequence[str]:
    """Names of the recordings that come with the platform."""
    here = files(__name__)
    found = [f"{folder}{entry.name}" for folder, at in (("", here), ("fork/", here / "fork")) for entry in at.iterdir()]
    return sorted(name.removesuffix(".jsonl") for name in found if name.endswith(".jsonl") and ".actions." not in name)


def read(name_or_file: str) -> Sequence[RecordedTrigger]:
    """The triggers of a recording: a file, or the name of one that comes with the platform. Raises NoRecording."""
    path = Path(name_or_file)
    if not path.is_file():
        shipped = name_or_file.removesuffix(".jsonl")
        if shipped not in names():
            raise NoRecording(f"there is no file {name_or_file}, and no recording of this name; there are: {', '.join(names())}")
        text = files(__name__).joinpath(f"{shipped}.jsonl").read_text(encoding="utf-8")
    else:
        text = path.read_text(encoding="utf-8")
    try:
        recorded = [_trigger(json.loads(line)) for line in text.splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoRecording(f"{name_or_file} is not a recording of triggers: {error!r}") from None
    if not recorded:
        raise NoRecording(f"{name_or_file} is empty")
    return recorded


def _trigger(line: Mapping[str, object]) -> RecordedTrigger:
    headers, answer, at = line["headers"], line.get("answer"), line["t"]
    if not isinstance(headers, dict) or not isinstance(at, int | float):
        raise TypeError("headers and t are missing")
    said = answer.get("body") if isinstance(answer, dict) else None
    return RecordedTrigger(
        float(at), str(line["trigger"]), {str(k): str(v) for k, v in headers.items()}, str(line["body"]), said or ""
    )
