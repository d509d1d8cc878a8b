"""What a backup holds, and what its manifest says.

    archive/…                 the archive as it is: immutable objects, so a second backup copies only what is new
    backups/TIME.json         one consistent cut: how far each partition reaches, and the small files below with checksums
    secrets/DIGEST.json       `secrets.json` of the data directory
    secrets/DIGEST.pem        certificate and key of the authority of nodes, where they lie in the data directory
    keys/DIGEST.csv           tables of wrapped data keys and of erasures

Invariants: a manifest is written last, so what it names is there. Data keys leave only wrapped; the master key never leaves.
Only the newest tables of keys are kept: a key that was destroyed is gone from backups with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec

from streams.archive.errors import ArchiveDamaged, ArchiveError
from streams.archive.objects import Objects

VERSION: Final = 1
ARCHIVE, BACKUPS, SECRETS, KEYS = "archive/", "backups/", "secrets/", "keys/"
KEY_TABLES: Final = ("data_key", "erasure")
"""Of the schema `platform`. All other tables are computed from the log."""


class Small(msgspec.Struct, frozen=True):
    """A file that is kept as a whole."""

    path: str
    sha256: str


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """One cut. What lies behind a partition's end was not there yet."""

    version: int = VERSION
    made_at: str
    topic_prefix: str
    positions: Mapping[str, Mapping[int, int]]  # topic: partition: end
    empty_until: Mapping[str, Mapping[int, int]]  # partitions that hold nothing, but not from 0 on: history was never there
    secrets: Small | None  # None: the installation has its secrets from its environment
    secret_key_id: str  # tells whether a secret key is the one
    keys: Mapping[str, Small]  # table: its rows as CSV
    authority: tuple[Small, Small] | None = None  # of nodes, certificate and key; None: the installation has it from elsewhere

    @property
    def path(self) -> str:
        return f"{BACKUPS}{self.made_at}.json"


async def put_small(target: Objects, folder: str, data: bytes, suffix: str) -> Small:
    digest = sha256(data).hexdigest()
    path = f"{folder}{digest[:32]}.{suffix}"
    await target.put(path, data)
    return Small(path, digest)


async def get_small(source: Objects, small: Small) -> bytes:
    data = await source.get(small.path)
    if data is None or sha256(data).hexdigest() != small.sha256:
        raise ArchiveDamaged(f"{small.path} of the backup is {'missing' if data is None else 'damaged'}: use another copy of it.")
    return data


async def backups(source: Objects) -> list[Backup]:
    """Every backup there, oldest first. Raises ArchiveError where there is none."""
    found = [listed.path async for listed in source.list(BACKUPS)]
    if not found:
        raise ArchiveError(f"there is no backup in {source.name}: `fw backup` makes one.")
    read = []
    for path in sorted(found):
        try:
            backup = msgspec.json.decode(await source.get(path) or b"", type=Backup)
        except msgspec.DecodeError as error:
            raise ArchiveDamaged(f"{path} of the backup cannot be read: {error}. Use another copy of it.") from None
        if backup.version != VERSION:
            raise ArchiveDamaged(f"{path} is of version {backup.version}: restore it with a newer version of the platform.")
        read.append(backup)
    return read


def secret_key_id(secret_key: bytes) -> str:
    """Tells it from others, and nothing about it."""
    return sha256(b"frameworks secret key id" + secret_key).hexdigest()[:16]
