"""A disk under SQLite that knows what was forced onto it: the real SQLite, its real files, and a layer between the two.

Invariant: `durable` holds each file as of its last fsync. After a loss of power nothing else is sure to be there; after a kill -9
everything is that was written.

The layer is a VFS of SQLite's own kind: it passes every call on to the system's, and notes writes and syncs.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FULL: Final = 13
_POINTER = ctypes.c_void_p
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, ctypes.c_int, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_int)
# the name as a pointer: SQLite keeps it, and finds the names of its other files behind it
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_int, _POINTER)


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = [
        ("iVersion", ctypes.c_int),
        ("xClose", _POINTER),
        ("xRead", _POINTER),
        ("xWrite", _POINTER),
        ("xTruncate", _POINTER),
        ("xSync", _POINTER),
        *[(f"rest{n}", _POINTER) for n in range(13)],
    ]


class _File(ctypes.Structure):
    _fields_ = [("pMethods", ctypes.POINTER(_Methods))]


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = [
        ("iVersion", ctypes.c_int),
        ("szOsFile", ctypes.c_int),
        ("mxPathname", ctypes.c_int),
        ("pNext", _POINTER),
        ("zName", ctypes.c_char_p),
        ("pAppData", _POINTER),
        ("xOpen", _POINTER),
        *[(f"rest{n}", _POINTER) for n in range(15)],
    ]


@dataclass(slots=True)
class Disk:
    """What one machine's disk holds. `is_full`: it takes no further byte."""

    durable: dict[str, bytes] = field(default_factory=dict)
    is_full: bool = False

    def connect(self, file: Path) -> sqlite3.Connection:
        """As `journal_file.connect`, on this disk."""
        _LAYER.disks[str(file.parent)] = self
        connection = sqlite3.connect(
            f"file:{file}?vfs=watched", uri=True, isolation_level=None, check_same_thread=False, timeout=5
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        return connection

    def synced(self, path: str) -> None:
        self.durable[Path(path).name] = Path(path).read_bytes()

    def after_kill(self, home: Path, to: Path) -> None:
        """The files in another directory, for the process that died keeps its descriptors."""
        to.mkdir(parents=True)
        for name in ("journal.db", "journal.db-wal"):
            if (home / name).exists():
                (to / name).write_bytes((home / name).read_bytes())

    def after_power_loss(self, home: Path, to: Path, torn_bytes: int) -> None:
        """What was forced, and of what was written behind it perhaps some."""
        to.mkdir(parents=True)
        for name, forced in self.durable.items():
            if name.endswith("-journal"):
                continue  # of the moment in which the file became one with a WAL, and gone since
            written = (home / name).read_bytes() if (home / name).exists() else b""
            torn = written[: len(forced) + torn_bytes] if written.startswith(forced) else forced
            (to / name).write_bytes(torn)


class _Layer:
    """Registered once, for all disks of the process; a file belongs to the disk of its directory."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), ctypes.c_int]
        self.disks: dict[str, Disk] = {}
        self._paths: dict[int, str] = {}
        self._kept: list[Any] = []
        self._base = library.sqlite3_vfs_find(None)
        self._open = _OPEN(self._base.contents.xOpen)
        self._vfs = _Vfs.from_buffer_copy(self._base.contents)
        opened = _OPEN(self._opened)
        self._kept.append(opened)
        self._vfs.zName, self._vfs.xOpen = b"watched", ctypes.cast(opened, _POINTER).value
        library.sqlite3_vfs_register(ctypes.byref(self._vfs), 0)
        self._methods: dict[int, _Methods] = {}

    def _opened(self, vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        code = self._open(ctypes.cast(self._base, _POINTER).value, name, file, flags, out)
        of = _File.from_address(file)
        if code == 0 and of.pMethods and name is not None:
            self._paths[file] = ctypes.string_at(name).decode()
            of.pMethods = ctypes.pointer(self._watching(of.pMethods))
        return int(code)

    def _watching(self, methods: Any) -> _Methods:
        """A copy of the system's methods, one for all files that have these, whose writes and syncs are seen."""
        address = ctypes.addressof(methods.contents)
        if address not in self._methods:
            copy = _Methods.from_buffer_copy(methods.contents)
            write, sync = _WRITE(copy.xWrite), _SYNC(copy.xSync)

            def watched_write(file: int, data: int, amount: int, offset: int) -> int:
                disk = self._disk(file)
                return FULL if disk is not None and disk.is_full else int(write(file, data, amount, offset))

            def watched_sync(file: int, flags: int) -> int:
                code = int(sync(file, flags))
                if code == 0 and (disk := self._disk(file)) is not None:
                    disk.synced(self._paths[file])
                return code

            kept = _WRITE(watched_write), _SYNC(watched_sync)
            self._kept.append((kept, write, sync))
            copy.xWrite, copy.xSync = (ctypes.cast(f, _POINTER).value for f in kept)
            self._methods[address] = copy
        return self._methods[address]

    def _disk(self, file: int) -> Disk | None:
        path = self._paths.get(file)
        return None if path is None else self.disks.get(str(Path(path).parent))


_LAYER: Final = _Layer()
