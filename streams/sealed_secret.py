"""Secrets that stand on the log, sealed: what the platform alone may read, such as the URL of a push target with its key in it.

Invariant: AES-256-GCM under a key that follows from the master secret for one tenant and this use alone; bound to the id of what
it is a secret of, so that it opens as nothing else. Who has the log and not the master secret learns its length.
"""

from __future__ import annotations

import os
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from streams.errors import Invalid

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


def seal(secret_key: bytes, tenant_id: UUID, id: UUID, text: str) -> bytes:
    """A version byte, a random nonce, the ciphertext. The same text twice is not the same bytes."""
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + _key(secret_key, tenant_id).encrypt(nonce, text.encode(), id.bytes)


def unseal(secret_key: bytes, tenant_id: UUID, id: UUID, sealed: bytes) -> str:
    """What was sealed. Raises Invalid: not by us, or not for this id."""
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    if sealed[:1] != _VERSION or len(nonce) != _NONCE_BYTES:
        raise Invalid("not a sealed secret")
    try:
        return _key(secret_key, tenant_id).decrypt(nonce, ciphertext, id.bytes).decode()
    except (InvalidTag, UnicodeDecodeError) as error:
        raise Invalid("sealed under another key, or for something else") from error


def _key(secret_key: bytes, tenant_id: UUID) -> AESGCM:
    derived = HKDF(SHA256(), 32, salt=tenant_id.bytes, info=b"sealed secret v1").derive(secret_key)
    return AESGCM(derived)
