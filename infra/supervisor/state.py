"""What is on disk about a running stack. Invariant: the lock is held exactly while a supervisor lives.

The lock is an flock: gone with its process however that ends, so there is never a stale one to delete by hand.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from infra.embedded.errors import IN_USE, CannotStart
from infra.supervisor.layout import Directory
from streams.settings import authority_files


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once, kept in the data directory (mode 0600)."""

    operator_token: str
    secret_key: str
    postgres_password: str
    clickhouse_password: str


def write_private(file: Path, text: str) -> None:
    """Replaces the file as a whole; nobody but its owner may read it."""
    incoming = file.with_name(file.name + ".incoming")
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    incoming.replace(file)


def read_secrets(directory: Directory) -> Secrets:
    """The secrets of this installation, made if there are none yet."""
    made = Secrets(f"fwo_{secrets.token_urlsafe(32)}", secrets.token_hex(32), secrets.token_hex(16), secrets.token_hex(16))
    fields = list(Secrets.__dataclass_fields__)
    try:
        kept = json.loads(directory.secrets.read_text())
        return Secrets(**{name: kept[name] for name in fields})
    except FileNotFoundError:
        write_private(directory.secrets, json.dumps({name: getattr(made, name) for name in fields}, indent=1) + "\n")
        return made
    except (ValueError, KeyError, TypeError):
        raise CannotStart(
            f"{directory.secrets} is damaged: it must hold {', '.join(fields)}. "
            "Restore it; without it the databases here cannot be opened."
        ) from None


def acquire(directory: Directory) -> IO[str]:
    """The lock of the data directory, to be kept open. Raises CannotStart when another supervisor has it."""
    lock = directory.lock.open("a+")
    os.set_inheritable(lock.fileno(), False)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "?"
        lock.close()
        raise CannotStart(
            f"FrameWorks is already running on {directory.root} (pid {owner}). `fw status` shows it; "
            "stop it with Ctrl-C in its terminal, or start another one with --data-dir and --port-base.",
            IN_USE,
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def is_running(directory: Directory) -> bool:
    """Whether a supervisor holds the lock of this directory."""
    try:
        with directory.lock.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def running_stack(directory: Directory) -> Mapping[str, object] | None:
    """What the supervisor of this directory says about the stack; None while none runs or it is not ready."""
    if not is_running(directory):
        return None
    try:
        stack: Mapping[str, object] = json.loads(directory.stack.read_text())
    except FileNotFoundError:
        return None
    return stack


def edge_credential(directory: Directory, secret_key: bytes, node_id: str) -> None:
    """The credential of the edge agent that runs beside us: a node of the operator. Made anew when it is old or another key's."""
    from streams.errors import Rejected
    from streams.ingress.credentials import issue, verify

    try:
        found = verify(secret_key, directory.edge_credential.read_text())
        if found.node_id == node_id and found.policy_key is not None:
            return
    except (FileNotFoundError, Rejected):
        pass
    directory.edge.mkdir(mode=0o700, exist_ok=True)
    write_private(directory.edge_credential, issue(secret_key, node_id, None))


def authority(directory: Directory, env: Mapping[str, str]) -> None:
    """The authority of nodes, made once, unless the environment names another. Its key is what it is: nobody else may read it."""
    if env.get("FW_CA_CERT") or env.get("FW_CA_KEY"):
        return
    certificate_file, key_file = authority_files(directory.root)
    if not certificate_file.exists() or not key_file.exists():
        from streams.pki.authority import make

        certificate, key = make(datetime.now(UTC))
        write_private(key_file, key.decode())
        write_private(certificate_file, certificate.decode())
