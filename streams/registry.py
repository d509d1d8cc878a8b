"""The schemas that ever were, by id.

Invariant: `schemas/avro/ids.lock.json` is append-only. An id means the same schema for ever, so every record that was ever
written can be read. `make gen` appends to it; a test refuses everything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

LOCK = "ids.lock.json"


@dataclass(frozen=True, slots=True)
class Registered:
    """One version of one record's schema."""

    id: int
    subject: str  # full name of the record, such as fw.facts.ViewerLeft
    version: int  # 1, 2, … within the subject
    schema: Mapping[str, object]  # complete: referenced records written out

    @property
    def name(self) -> str:
        """Record name without its namespace."""
        return self.subject.rpartition(".")[2]

    @property
    def text(self) -> str:
        """The schema as JSON text, as a registry serves it."""
        return json.dumps(self.schema, separators=(",", ":"), ensure_ascii=False)


@cache
def registered() -> Sequence[Registered]:
    """Every version of every schema, in the order of their ids."""
    raw = files("schemas").joinpath("avro", LOCK).read_text(encoding="utf-8")
    return tuple(
        Registered(id=r["id"], subject=r["subject"], version=r["version"], schema=r["schema"]) for r in json.loads(raw)["schemas"]
    )


@cache
def by_id() -> Mapping[int, Registered]:
    return {r.id: r for r in registered()}


@cache
def latest() -> Mapping[str, Registered]:
    """The newest version of every subject."""
    return {r.subject: r for r in registered()}


@cache
def by_name() -> Mapping[str, Registered]:
    """The newest version of every record, by its short name (short names are unique)."""
    return {r.name: r for r in latest().values()}


def versions(subject: str) -> Sequence[Registered]:
    return tuple(r for r in registered() if r.subject == subject)
