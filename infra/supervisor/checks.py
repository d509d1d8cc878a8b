"""What can be wrong with a machine, in plain words. Each check returns a sentence that says what to do, or None."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from infra.embedded import jars, ports
from infra.embedded.errors import DISK_FULL, PORT_TAKEN, CannotStart

MB = 1 << 20
NEEDED_DISK_BYTES = 512 * MB  # what a first start writes, and some room to work
LOW_DISK_BYTES = 256 * MB  # while running
NEEDED_MEMORY_BYTES = 2 << 30


def python_version(version: tuple[int, int] = sys.version_info[:2]) -> str | None:
    if version >= (3, 11):
        return None
    return f"Python {version[0]}.{version[1]} is too old: install 3.11 or newer, delete .venv and run `make setup`."


def free_disk(directory: Path, free_bytes: int, needed_bytes: int = NEEDED_DISK_BYTES) -> str | None:
    if free_bytes >= needed_bytes:
        return None
    return (
        f"The disk of {directory} is full: {free_bytes // MB} MB are free, {needed_bytes // MB} MB are needed. "
        "Free some space, or choose another disk with --data-dir."
    )


def nearest(directory: Path) -> Path:
    """The directory, or what is there of the way to it."""
    return next(path for path in (directory, *directory.parents) if path.exists())


def data_directory(root: Path) -> str | None:
    there = nearest(root)
    if not there.is_dir():
        return f"{there} is not a directory: choose another with --data-dir."
    if not os.access(there, os.W_OK):
        return f"{there} cannot be written: choose another with --data-dir."
    return None


def free_memory(available_bytes: int) -> str | None:
    if available_bytes >= NEEDED_MEMORY_BYTES:
        return None
    return (
        f"Only {available_bytes // MB} MB of memory are available; all of it uses up to {NEEDED_MEMORY_BYTES // MB} MB. "
        "Close something, or run parts elsewhere (--no-… flags)."
    )


def free_ports(wanted: Mapping[int, str]) -> str | None:
    taken = [port for port in wanted if not ports.is_free(port)]
    if not taken:
        return None
    first = taken[0]
    others = f" (and {len(taken) - 1} more: {', '.join(map(str, taken[1:]))})" if len(taken) > 1 else ""
    return (
        f"Port {first}, wanted for {wanted[first]}, is in use by {ports.owner(first)}{others}. "
        "Stop that program, or shift all our ports with --port-base 1000."
    )


def downloads() -> str | None:
    """Damaged ones only: what is missing is fetched by the next start, as on every new machine."""
    _, damaged = jars.missing_or_damaged()
    if not damaged:
        return None
    names = ", ".join(jar.name for jar in damaged)
    return f"Of Kafka's {len(jars.locked())} jars, {len(damaged)} damaged ({names}): `fw prepare` fetches them again."


def before_start(root: Path, wanted_ports: Mapping[int, str]) -> None:
    """Raises CannotStart with the first thing that would surely fail later, less clearly."""
    if problem := free_disk(root, shutil.disk_usage(root).free):
        raise CannotStart(problem, DISK_FULL)
    if problem := free_ports(wanted_ports):
        raise CannotStart(problem, PORT_TAKEN)


def explained(error: OSError, root: Path) -> CannotStart:
    """An operating system's error as a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return CannotStart(free_disk(root, 0, NEEDED_DISK_BYTES) or "", DISK_FULL)
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and (problem := data_directory(root)):
        return CannotStart(problem)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return CannotStart(
            f"{error.filename or root} cannot be written: {error.strerror}. Choose another directory with --data-dir."
        )
    return CannotStart(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")


def memory() -> str | None:
    return free_memory(psutil.virtual_memory().available)
