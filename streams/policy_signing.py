"""The platform's signature under every record of the policy: Ed25519 over the framed value.

Invariant: the key pair follows from the master secret for this use alone. Whoever has the public key (a node, from its
credential) can tell the platform's records from all others, whatever carried them: Kafka, an ingress, a disk.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


class Signer:
    """Signs for the platform. The same value has the same signature, always."""

    def __init__(self, secret_key: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(hmac.digest(secret_key, b"policy signing v1", "sha256"))

    @property
    def public_key(self) -> bytes:
        """As nodes are told it, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, value: bytes) -> bytes:
        return self._private.sign(value)


class Verifier:
    """Knows the platform's signature. ValueError: this is no public key."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self._public = Ed25519PublicKey.from_public_bytes(public_key)

    def is_good(self, value: bytes, signature: bytes) -> bool:
        try:
            self._public.verify(signature, value)
        except InvalidSignature:
            return False
        return True


def public_key(secret_key: bytes) -> bytes:
    """The public key of the installation with this master secret."""
    return Signer(secret_key).public_key


def webhook_secret(secret_key: bytes, tenant_id: bytes) -> bytes:
    """What requests to the tenant's playback webhook are signed with: known to the platform, its nodes and the tenant.

    It is the key as it stands, ASCII, so that a tenant can take what it is shown as its key.
    """
    digest = hmac.digest(secret_key, b"playback webhook v1" + tenant_id, "sha256")
    return b"whsec_" + base64.b32encode(digest).rstrip(b"=").lower()
