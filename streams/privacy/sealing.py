"""A value sealed under a data key: what stands in an event in place of an address, a name or a raw body.

Invariant: what is sealed opens with its data key, for its tenant, as its field of its event, and as nothing else: tenant, key,
event and field are authenticated with it, so nobody who can write to the log can show one person's address as another's.

AES-256-GCM with a random nonce. A data key is good for KEY_USES values: far below the 2^32 at which random nonces of 96 bits
may no longer be relied on to differ.
"""

from __future__ import annotations

import os
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.errors import Invalid

KEY_BYTES: Final = 32
KEY_USES: Final = 1 << 24
NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"
_HEAD_BYTES: Final = 1 + 16 + NONCE_BYTES


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def seal(key: AESGCM, key_id: UUID, value: bytes, *, tenant_id: UUID, event_id: UUID, field: str) -> bytes:
    """1 byte version, 16 bytes key id, 12 bytes nonce, the ciphertext with its tag."""
    nonce = os.urandom(NONCE_BYTES)
    return _VERSION + key_id.bytes + nonce + key.encrypt(nonce, value, _bound_to(tenant_id, key_id, event_id, field))


def key_id_of(sealed: bytes) -> UUID:
    """Which data key opens it. Raises Invalid."""
    if len(sealed) < _HEAD_BYTES or sealed[:1] != _VERSION:
        raise Invalid("not a sealed value of a version that is known here")
    return UUID(bytes=sealed[1:17])


def unseal(key: AESGCM, sealed: bytes, *, tenant_id: UUID, event_id: UUID, field: str) -> bytes:
    """Raises Invalid: another key, another event, or changed on the way."""
    key_id = key_id_of(sealed)
    try:
        return key.decrypt(sealed[17:_HEAD_BYTES], sealed[_HEAD_BYTES:], _bound_to(tenant_id, key_id, event_id, field))
    except InvalidTag:
        raise Invalid(f"what was sealed with key {key_id} does not belong to this event, or was changed") from None


def _bound_to(tenant_id: UUID, key_id: UUID, event_id: UUID, field: str) -> bytes:
    return tenant_id.bytes + key_id.bytes + event_id.bytes + field.encode()
