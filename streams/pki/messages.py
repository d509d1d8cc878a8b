"""What passes between a node that enrols, or renews, and the platform. Over HTTP, and safe where that is not encrypted.

Invariant: an enrolment token never travels. The node proves that it has it over the very key that it asks a certificate for, so
whoever listens, or stands between, cannot enrol a key of theirs. Every answer that means yes is signed by the authority and names
the request, so it can neither be made up nor be taken from another request; the node knows the authority by the pin in its token.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ENROL_PATH: Final = "/enrol"
RENEW_PATH: Final = "/enrol/renew"
SIGNATURE_HEADER: Final = "X-FW-Signature"
_TOKEN: Final = re.compile(r"(fwe_[a-z2-7]{8}_[a-z2-7]{32})_([a-z2-7]{32})")
_SHA256: Final = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """As an operator gives it to a node: the secret, and the pin of the authority."""

    secret: str
    pin: str

    def __str__(self) -> str:
        return f"{self.secret}_{self.pin}"

    @property
    def prefix(self) -> str:
        return self.secret.rpartition("_")[0]


def parse_token(text: str) -> EnrolmentToken:
    """ValueError: this is none."""
    found = _TOKEN.fullmatch(text.strip())
    if found is None:
        raise ValueError("this is no enrolment token: it begins with fwe_ and has 78 characters; copy it whole")
    return EnrolmentToken(found[1], found[2])


class EnrolRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token_prefix: str
    csr: str  # PEM
    proof: str  # hexadecimal, see `proof_of`


class RenewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: str  # PEM, the one that is in use
    csr: str  # PEM
    signature: str  # hexadecimal, of `renewal_message`, by the key of the certificate


class Enrolled(msgspec.Struct, frozen=True):
    """The answer that means yes."""

    node_id: str
    tenant_id: UUID  # whose node it is: of what it says about itself
    certificate: str  # PEM
    lifetime_seconds: int  # of the certificate, from now on: the node counts by its own clock
    authority: str  # PEM
    ingress: str  # host:port
    policy_key: str  # hexadecimal: what the policy's signatures are verified with


class Refused(msgspec.Struct, frozen=True):
    """The answer that means no, or not now."""

    code: str
    message: str


def proof_of(secret: str, csr: x509.CertificateSigningRequest) -> str:
    """That whoever asks has the token."""
    return hmac.digest(secret.encode(), b"fw enrolment request v1\0" + csr_bytes(csr), "sha256").hex()


def renewal_message(csr: x509.CertificateSigningRequest) -> bytes:
    return b"fw certificate renewal v1\0" + csr_bytes(csr)


def answer_message(csr: x509.CertificateSigningRequest, body: bytes) -> bytes:
    """What the authority signs of an answer."""
    return b"fw enrolment answer v1\0" + sha256(csr_bytes(csr)).digest() + body


def new_request(key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """Asks for a certificate of this key. What will stand in it, the platform decides."""
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())


def csr_bytes(csr: x509.CertificateSigningRequest) -> bytes:
    return csr.public_bytes(Encoding.DER)


def csr_pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(Encoding.PEM).decode()


def parse_csr(pem: str) -> tuple[x509.CertificateSigningRequest, ec.EllipticCurvePublicKey]:
    """A request, signed by the key that it is about. ValueError: it is none, or of a kind of key that we do not use."""
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("the key must be of the curve P-256")
        if not csr.is_signature_valid:
            raise ValueError("it is not signed by its key")
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ValueError(f"csr is no certificate signing request that can be used: {error}") from error
    return csr, key


def fingerprint(key: CertificatePublicKeyTypes) -> bytes:
    """SHA-256 of a public key."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return key.sign(message, _SHA256)


def signed_with(certificate: x509.Certificate, message: bytes, signature: bytes) -> bool:
    """Whether whoever has the certificate's key signed a message."""
    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, message, _SHA256)
    except InvalidSignature:
        return False
    return True
