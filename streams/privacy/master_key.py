"""The master key: wraps every data key that the platform keeps. Whoever has it and the key store opens personal data.

A file of 64 hexadecimal digits, `master.key` in the data directory unless FW_MASTER_KEY_FILE names another; or what a command
prints (FW_MASTER_KEY_COMMAND), which is how a key management service comes in: `aws kms decrypt …`, `vault kv get …`; or
`printenv FW_MASTER_KEY`. It is read when a process first needs it, and made when an installation without settings has no keys.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.errors import Transient
from streams.privacy.sealing import KEY_BYTES, NONCE_BYTES
from streams.settings import Settings, SettingsError

COMMAND_SECONDS: Final = 60
ADVICE: Final = "set FW_MASTER_KEY_FILE or FW_MASTER_KEY_COMMAND to the one that this installation was made with"


class WrongMasterKey(Transient):
    """The keys in the store cannot be opened until the operator gives the right master key; nothing is lost meanwhile."""


@dataclass(frozen=True, slots=True, repr=False)  # it must not get into a log line
class MasterKey:
    key: bytes

    @property
    def id(self) -> bytes:
        """Tells it from others, and nothing about it."""
        return sha256(b"frameworks master key id" + self.key).digest()[:8]

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, key, bound_to)

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> bytes:
        try:
            return AESGCM(self.key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound_to)
        except InvalidTag:
            raise WrongMasterKey(f"a key in platform.data_key was not wrapped by this master key: {ADVICE}") from None


def master_key_file(settings: Settings) -> Path:
    """Where the key is when no command prints it."""
    return settings.master_key_file or settings.data_dir / "master.key"


def master_key(settings: Settings, *, may_make: bool) -> MasterKey:
    """The master key; where `may_make` and nothing is set, a new one. Raises SettingsError."""
    if settings.master_key_command:
        return _key(_printed(settings.master_key_command), "FW_MASTER_KEY_COMMAND")
    file = master_key_file(settings)
    if settings.master_key_file is None and may_make:
        _make_once(file)
    try:
        return _key(file.read_text(encoding="ascii"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the master key cannot be read from {file}: {error}; {ADVICE}") from None


def _key(text: str, source: str) -> MasterKey:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{source}: a master key is {2 * KEY_BYTES} hexadecimal digits; make one with `openssl rand -hex 32`")
    return MasterKey(key)


def _printed(command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S602  # the operator's own line, as in their shell
            command,
            shell=True,
            capture_output=True,
            text=True,
            check=True,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise SettingsError(f"FW_MASTER_KEY_COMMAND ended with {error.returncode}: {error.stderr.strip()[-500:]}") from None
    except subprocess.TimeoutExpired:
        raise SettingsError(f"FW_MASTER_KEY_COMMAND did not end within {COMMAND_SECONDS} s") from None
    return done.stdout


def _make_once(file: Path) -> None:
    """Several processes may start at once: the first link wins, and a reader sees the whole key or no file."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
        out.write(secrets.token_hex(KEY_BYTES) + "\n")
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
