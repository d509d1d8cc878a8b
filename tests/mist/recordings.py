"""Recorded exchanges with the API of a real MistServer 3.10, by file and note."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


def exchanges(file: str) -> list[Mapping[str, Any]]:
    """{note, request, reply, …} in their order."""
    return [json.loads(line) for line in (RECORDED / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]


def reply(file: str, note: str) -> Mapping[str, Any]:
    """What was answered in the exchange of this note."""
    return next(e for e in exchanges(file) if e["note"] == note)["reply"]  # type: ignore[no-any-return]  # JSON
