"""The platform's own certificate authority: its key signs nodes, ingresses, and what the platform answers to nodes that enrol.

Invariant: whoever knows the authority's pin knows the platform. A certificate of a node names the node and its enrolment and is
good for clients only; one of an ingress bears `INGRESS_NAME`, which no node's does, so no node passes for the platform.
Certificates begin in the past: a clock that is a little behind finds them good.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from streams.ids import node_uuid
from streams.pki.identity import NodeIdentity

INGRESS_NAME: Final = "ingress.frameworks.internal"
"""What the certificate of every ingress says, whatever its address: nodes trust the authority, not the name service."""
AUTHORITY_DAYS: Final = 20 * 365
INGRESS_DAYS: Final = 30
BACKDATED: Final = timedelta(hours=1)
PIN_LETTERS: Final = 32  # 160 bits
_SHA256: Final = ec.ECDSA(hashes.SHA256())
_NODE_USAGE: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_INGRESS_USAGE: Final = ExtendedKeyUsageOID.SERVER_AUTH


class NoAuthority(ValueError):
    """The files of the authority are not there, or are not one. The sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority as whoever signs has it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def pin(self) -> str:
        return pin_of(self.certificate)

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message, _SHA256)

    def node_certificate(
        self, identity: NodeIdentity, public_key: ec.EllipticCurvePublicKey, serial: int, now: datetime
    ) -> bytes:
        """PEM of a certificate for a node's key, until `identity.not_after`."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(node_uuid(identity.node_id)))])
        san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
        begins = max(now - BACKDATED, self.certificate.not_valid_before_utc)
        builder = _builder(name, self.certificate.subject, public_key, serial, begins, identity.not_after)
        return self._signed(builder.add_extension(san, critical=False), _NODE_USAGE)

    def ingress_certificate(self, now: datetime) -> tuple[bytes, bytes]:
        """A new key and its certificate for an ingress, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, INGRESS_NAME)])
        san = x509.SubjectAlternativeName([x509.DNSName(INGRESS_NAME)])
        begins = max(now - timedelta(days=1), self.certificate.not_valid_before_utc)
        ends = min(now + timedelta(days=INGRESS_DAYS), self.certificate.not_valid_after_utc)
        builder = _builder(name, self.certificate.subject, key.public_key(), x509.random_serial_number(), begins, ends)
        return private_pem(key), self._signed(builder.add_extension(san, critical=False), _INGRESS_USAGE)

    def _signed(self, builder: x509.CertificateBuilder, usage: x509.ObjectIdentifier) -> bytes:
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def make(now: datetime) -> tuple[bytes, bytes]:
    """A new authority: certificate and key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FrameWorks nodes")])
    begins, ends = now - timedelta(days=1), now + timedelta(days=AUTHORITY_DAYS)
    usage = x509.KeyUsage(
        digital_signature=True,  # it also signs what the platform answers to nodes that enrol
        key_cert_sign=True,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), x509.random_serial_number(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), private_pem(key)


def load(certificate_file: Path, key_file: Path) -> Authority:
    """Raises NoAuthority."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
    except OSError as error:
        advice = "make an authority with `fw node authority`, or let `fw up` make one"
        raise NoAuthority(f"cannot read {error.filename}: {error.strerror}; {advice}") from error
    except (ValueError, TypeError) as error:
        raise NoAuthority(f"{certificate_file} and {key_file} must be a certificate and a key as PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise NoAuthority(f"{key_file} is not the key of the certificate in {certificate_file}")
    return Authority(certificate, key)


def pin_of(certificate: x509.Certificate) -> str:
    """The authority in 32 letters: it stands in every enrolment token."""
    return base64.b32encode(sha256(certificate.public_bytes(Encoding.DER)).digest()).decode().lower()[:PIN_LETTERS]


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(  # what all our certificates have
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    serial: int,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
