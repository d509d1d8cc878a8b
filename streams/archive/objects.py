"""Object storage through one library: a folder by default, S3, Google and Azure by URL.

Invariant: an object is written once and never changed. `put` succeeds for exactly one of many writers; on a local disk it has
reached the disk when it returns.

Only the library's blocking calls are used, in threads that the event loop owns and joins. Its own coroutines are answered by a
thread of its runtime that needs the interpreter's lock, and a process that ends in that moment is aborted (SIGABRT: one `fw`
command in four on a busy machine).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from streams.archive.errors import ArchiveUnreachable

SCHEMES: Final = ("file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss")


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it."""

    path: str
    size_bytes: int
    modified_at: datetime


class Objects:
    """The objects under one URL. Any failure of the storage is ArchiveUnreachable, with what to do."""

    def __init__(self, url: str) -> None:
        self.name = without_password(url)
        with self._explained("open"):
            self._local = local_folder(url)
            if self._local is not None:
                self._local.mkdir(parents=True, exist_ok=True)
                self._store: ObjectStore = LocalStore(self._local)
            else:
                self._store = from_url(url)

    async def put(self, path: str, data: bytes) -> bool:
        """Writes an object that is not there yet; False: it is there already, and stays as it is."""
        with self._explained(f"write {path} to"):
            try:
                await asyncio.to_thread(self._put, path, data)
            except AlreadyExistsError:
                return False
            return True

    async def get(self, path: str) -> bytes | None:
        """None: there is no such object."""
        with self._explained(f"read {path} from"):
            try:
                return await asyncio.to_thread(lambda: bytes(obstore.get(self._store, path).bytes()))
            except (NotFoundError, FileNotFoundError):
                return None

    async def list(self, prefix: str = "") -> AsyncIterator[Listed]:
        """Every object whose path begins with a folder, in no order."""
        with self._explained("list"):
            chunks = iter(obstore.list(self._store, prefix or None, chunk_size=1000))
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                for found in chunk:
                    yield Listed(found["path"], found["size"], found["last_modified"])

    async def delete(self, path: str) -> None:
        with self._explained(f"delete {path} in"):
            try:
                await asyncio.to_thread(obstore.delete, self._store, path)
            except (NotFoundError, FileNotFoundError):
                return

    def _put(self, path: str, data: bytes) -> None:
        obstore.put(self._store, path, data, mode="create", use_multipart=False)
        if self._local is not None:
            _to_disk(self._local / path)

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            said = str(error).strip().partition("\n")[0]
            raise ArchiveUnreachable(
                f"cannot {doing} the archive at {self.name}: {said}. Check FW_ARCHIVE_URL, what the storage "
                "allows us, and the disk."
            ) from error


def local_folder(url: str) -> Path | None:
    """The folder that a URL or path names; None: it is remote. Raises ValueError for a scheme that nobody knows."""
    parts = urlsplit(url)
    if "://" not in url:
        return Path(url).absolute()
    if parts.scheme not in SCHEMES:
        raise ValueError(f"{parts.scheme}:// is no object storage that is known here: use a folder, s3://, gs:// or az://")
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _to_disk(file: Path) -> None:
    """The library renames into place without waiting for the disk; a manifest must not be there before what it names."""
    for path in (file, file.parent):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
