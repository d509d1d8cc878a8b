"""What a command id stands for: ids, names and secrets that need not be remembered.

Invariant: the same command id gives the same stream, slug, key and token on every gateway that has the master secret, so a
mutation that is sent again answers the same key. Only the prefix and the SHA-256 of a secret leave this process for the log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from streams import ids
from streams.generated import SigningAlgorithm

SLUG_MAX_LENGTH: Final = 64
STREAM_KEY: Final = "sk"
API_TOKEN: Final = "fwt"  # noqa: S105 - a prefix, not a secret
ENROLMENT_TOKEN: Final = "fwe"  # noqa: S105 - a prefix, not a secret
_PREFIX_CHARS: Final = 8
_SECRET_CHARS: Final = 32
_TOKEN_PREFIX: Final = re.compile(r"fwt_[a-z2-7]{8}")
_SIGNING_KEY_ID: Final = re.compile(r"[a-z2-7]{16}")
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SECRET_TEXT: Final = re.compile(r"(sk|fwt)_[a-z2-7]{8}_[a-z2-7]{32}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A stream key or an API token. `text` is shown once; prefix and hash are what is stored."""

    text: str = field(repr=False)
    prefix: str
    hash: bytes


def _letters(data: bytes) -> str:
    """Lower-case base32 without padding: safe in URLs, file names and on the phone."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def secret(master: bytes, kind: str, command_id: UUID) -> Secret:
    """The secret of a command: `KIND_<8>_<32>`, 160 bits of them secret."""
    digest = hmac.digest(master, f"frameworks/{kind}/1:".encode() + command_id.bytes, "sha512")
    prefix = f"{kind}_{_letters(digest[:5])[:_PREFIX_CHARS]}"
    text = f"{prefix}_{_letters(digest[5:25])[:_SECRET_CHARS]}"
    return Secret(text=text, prefix=prefix, hash=secret_hash(text))


def secret_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def url_digest(master: bytes, tenant_id: UUID, url: str) -> bytes:
    """Tells the URLs of a tenant's push targets apart, without telling them: without the master secret nobody can try some."""
    key = hmac.digest(master, b"frameworks/push-url/1:" + tenant_id.bytes, "sha256")
    return hmac.digest(key, url.encode(), "sha256")


def prefix_of(text: str) -> str | None:
    """Lookup prefix of a well-formed key or token; None when the text cannot be one."""
    return text.rpartition("_")[0] if _SECRET_TEXT.fullmatch(text) else None


def is_token_prefix(text: str) -> bool:
    """Whether this can be the prefix of an API token; a whole token is not, and must not get into the log as one."""
    return _TOKEN_PREFIX.fullmatch(text) is not None


def signing_key_id(command_id: UUID) -> str:
    """`kid` of a signing key: 16 letters, 80 bits."""
    return _letters(hashlib.sha256(b"signing key:" + command_id.bytes).digest()[:10])


def is_signing_key_id(text: str) -> bool:
    return _SIGNING_KEY_ID.fullmatch(text) is not None


def signing_key_pair(master: bytes, algorithm: SigningAlgorithm, command_id: UUID) -> tuple[bytes, str]:
    """The key pair of a command: public key (DER), private key (PEM). Nothing of the private one is kept anywhere."""
    seed = hmac.digest(master, f"frameworks/{algorithm.value}/1:".encode() + command_id.bytes, "sha512")
    private: ec.EllipticCurvePrivateKey | Ed25519PrivateKey
    if algorithm is SigningAlgorithm.ES256:
        private = ec.derive_private_key(int.from_bytes(seed) % (_P256_ORDER - 1) + 1, ec.SECP256R1())
    else:
        private = Ed25519PrivateKey.from_private_bytes(seed[:32])
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def stream_id(command_id: UUID) -> UUID:
    return ids.derive(command_id, "stream")


def tenant_id(command_id: UUID) -> UUID:
    return ids.derive(command_id, "tenant")


def node_id(owner: UUID, name: str) -> str:
    """What a node is called in every fact: unique among all owners. The operator's are called by their name alone."""
    if owner == ids.OPERATOR_TENANT:
        return name
    return f"{name}~{_letters(hashlib.sha256(b'nodes of:' + owner.bytes).digest()[:8])[:12]}"


def playback_id(command_id: UUID) -> str:
    """Public name of a stream: 16 letters, 80 bits."""
    return _letters(hashlib.sha256(b"playback:" + command_id.bytes).digest()[:10])


def internal_name(command_id: UUID) -> str:
    """Name on the media servers, behind `live+`: 20 letters, 100 bits. Not the public one: it would let viewers guess URLs."""
    return _letters(hashlib.sha256(b"internal:" + command_id.bytes).digest()[:13])[:20]


def slug(title: str, command_id: UUID) -> str:
    """A slug for a title, unique by its suffix: `my-stream-k3x7qa`."""
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_title).strip("-")
    suffix = _letters(hashlib.sha256(b"slug:" + command_id.bytes).digest()[:5])[:6]
    return f"{words[: SLUG_MAX_LENGTH - 7].strip('-') or 'stream'}-{suffix}"
