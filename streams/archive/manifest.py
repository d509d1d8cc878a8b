"""What the archive says about one closed range of a partition, and how its objects are named.

Invariants: only manifests count, an object that none names does not exist for readers. A manifest is named by its first offset
alone, so of two writers one wins, and the ranges of a partition follow one another without gap or overlap whoever writes.
A data object is named by its own checksum, so writing it twice is writing the same bytes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

from streams.archive.errors import ArchiveDamaged
from streams.faust_batches.fetched import TP

VERSION: Final = 1
MANIFEST: Final = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)/(?P<partition>\d{5})/(?P<first>\d{20})\.json")
DATA: Final = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)/(?P<partition>\d{5})/(?P<first>\d{20})-(?P<digest>[0-9a-f]{32})\.avro")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One closed range [first, end). Offsets without a record in it belong to commit markers and aborted transactions."""

    version: int = VERSION
    topic: str
    partition: int
    first: int
    end: int
    records: int
    first_appended_ms: int | None  # smallest and greatest append time; null: no record
    last_appended_ms: int | None
    schema_ids: tuple[int, ...]
    object: str | None  # name of the data object, beside the manifest; null: no record
    object_bytes: int
    raw_bytes: int
    sha256: str | None  # of the data object
    is_lost: bool = False  # the log deleted this range before it was archived, and a person accepted that

    @property
    def tp(self) -> TP:
        return TP(self.topic, self.partition)

    @property
    def path(self) -> str:
        return manifest_path(self.tp, self.first)

    @property
    def object_path(self) -> str | None:
        return None if self.object is None else folder(self.tp) + self.object

    def encoded(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def folder(tp: TP) -> str:
    return f"{tp.topic}/{tp.partition:05d}/"


def manifest_path(tp: TP, first: int) -> str:
    return f"{folder(tp)}{first:020d}.json"


def object_name(first: int, digest: str) -> str:
    return f"{first:020d}-{digest[:32]}.avro"


def read_manifest(path: str, data: bytes) -> Manifest:
    """Raises ArchiveDamaged where it is none, or not the one of its name."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ArchiveDamaged(f"manifest {path} cannot be read: {error}. {MEND}") from None
    if manifest.version != VERSION:
        raise ArchiveDamaged(f"manifest {path} is of version {manifest.version}: read it with a newer version of the platform.")
    if manifest.path != path or manifest.end <= manifest.first:
        raise ArchiveDamaged(f"manifest {path} speaks of another range than its name. {MEND}")
    return manifest


MEND: Final = "Put it back from a backup (`fw archive verify` names everything that is damaged); nothing else has been touched."


def when(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
