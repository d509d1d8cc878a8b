"""Checks of what people type, before anything is sent. Business rules are the deciders'; shape is checked here.

A broken rule raises BadInput, which becomes a ValidationError with the field and a sentence that says what to do.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from streams.generated import SigningAlgorithm

TITLE_MAX_LENGTH: Final = 200
NAME_MAX_LENGTH: Final = 100
CLIENT_KEY_MAX_LENGTH: Final = 200
GRACE_MAX_SECONDS: Final = 7 * 24 * 60 * 60
EMAIL_MAX_LENGTH: Final = 254
PEM_MAX_LENGTH: Final = 4000
_EMAIL: Final = re.compile(r"[^\s@\x00-\x1f]{1,64}@[^\s@\x00-\x1f]+\.[^\s@\x00-\x1f.]+")
_VISIBLE: Final = frozenset("LNPS")  # letters, numbers, punctuation, symbols
_BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SLUG: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


class BadInput(Exception):
    """An input that cannot be right. `code` is stable, `field` is the input's name in the schema."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(code, field, message)
        self.code, self.field, self.message = code, field, message


def line_of_text(value: str, field: str, code: str, max_length: int) -> str:
    """A line for people: trimmed, composed (NFC), something visible, nothing that controls."""
    text = unicodedata.normalize("NFC", value).strip()
    if not any(unicodedata.category(c)[0] in _VISIBLE for c in text):
        raise BadInput(code, field, f"{field} is empty: give it at least one visible character")
    if len(text) > max_length:
        raise BadInput(code, field, f"{field} has {len(text)} characters, {max_length} are allowed: shorten it")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for c in text):
        raise BadInput(code, field, f"{field} has control or unassigned characters: remove them")
    if not _BIDI_CONTROLS.isdisjoint(text):
        raise BadInput(
            code, field, f"{field} has characters that turn the direction of writing, which can disguise it: remove them"
        )
    return text


def title(value: str) -> str:
    return line_of_text(value, "title", "TITLE_INVALID", TITLE_MAX_LENGTH)


def tenant_name(value: str) -> str:
    return line_of_text(value, "name", "NAME_INVALID", NAME_MAX_LENGTH)


def email(value: str | None, field: str) -> str | None:
    """An address that a letter could go to. Whether it does, only a letter tells."""
    if value is None:
        return None
    if len(value) > EMAIL_MAX_LENGTH or not _EMAIL.fullmatch(value):
        raise BadInput(
            "EMAIL_INVALID", field, f"{field} must look like name@example.org, with at most {EMAIL_MAX_LENGTH} characters"
        )
    return value


def slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise BadInput(
            "SLUG_INVALID",
            "slug",
            "slug must be 1 to 64 of a-z, 0-9 and -, and begin and end with a letter or digit, such as my-stream",
        )
    return value


def grace_seconds(value: int | None) -> int:
    grace = 0 if value is None else value
    if not 0 <= grace <= GRACE_MAX_SECONDS:
        raise BadInput("GRACE_INVALID", "graceSeconds", f"graceSeconds must be from 0 to {GRACE_MAX_SECONDS} (7 days)")
    return grace


def public_key(pem: str, algorithm: SigningAlgorithm) -> bytes:
    """A public key in PEM as DER. Only what the algorithm takes: a private key pasted by mistake is refused, and not kept."""
    kind, field = ("P-256" if algorithm is SigningAlgorithm.ES256 else "Ed25519"), "publicKeyPem"
    message = f"publicKeyPem must be a {kind} public key in PEM, beginning with -----BEGIN PUBLIC KEY-----"
    if len(pem) > PEM_MAX_LENGTH:
        raise BadInput("PUBLIC_KEY_INVALID", field, message)
    try:
        key = load_pem_public_key(pem.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput("PUBLIC_KEY_INVALID", field, message) from None
    is_p256 = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    if not (is_p256 if algorithm is SigningAlgorithm.ES256 else isinstance(key, Ed25519PublicKey)):
        raise BadInput("PUBLIC_KEY_INVALID", field, message)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def client_key(value: str | None) -> str | None:
    """The client's idempotency key; None when it sent none."""
    if value is None:
        return None
    if not 1 <= len(value) <= CLIENT_KEY_MAX_LENGTH:
        raise BadInput(
            "CLIENT_KEY_INVALID", "clientMutationId", f"clientMutationId must have 1 to {CLIENT_KEY_MAX_LENGTH} characters"
        )
    return value


def uuid_or_none(value: str) -> UUID | None:
    """An id as the API shows it; None when it cannot be one, so it names nothing."""
    try:
        found = UUID(value)
    except ValueError:
        return None
    return found if str(found) == value.lower() else None
