"""What MistServer's own balancer was asked and answered (tests/recordings/balancer.jsonl): the contract of the gateway's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "recordings" / "balancer.jsonl"


@dataclass(frozen=True, slots=True)
class Recording:
    note: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...]
    reply: Any
    ending: str  # the last characters of the body

    @property
    def length(self) -> int:
        return int(dict(self.headers)["Content-Length"])


@cache
def recordings() -> dict[str, Recording]:
    """By their notes; those that were answered."""
    lines = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return {
        line["note"]: Recording(
            line["note"],
            line["path"],
            line["status"],
            tuple((name, value) for name, value in line["reply_headers"]),
            line["reply"],
            line["trailing"][1:-1].replace("\\n", "\n").replace('\\"', '"'),
        )
        for line in lines
        if line["reply_headers"]
    }
