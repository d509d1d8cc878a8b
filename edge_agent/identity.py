"""Who this node is, once it was enrolled: one file with its key, its certificate, and what it knows of the platform.

Invariant: the file is replaced as a whole, and nobody but its owner may read it. What stands in it was signed by the authority
that the enrolment token named. A certificate that is asked for and did not come yet stands in a file beside it, so that asking
again, after a kill too, asks for the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from streams.ingress.transport import NodeCertificate
from streams.pki.authority import private_pem
from streams.pki.messages import csr_pem, new_request

IDENTITY: Final = "identity.json"
ASKED: Final = "certificate-asked.json"


@dataclass(frozen=True, slots=True)
class Identity:
    node_id: str
    tenant_id: UUID  # whose node it is
    platform: str  # URL of the gateway
    ingress: str  # host:port
    authority: str  # PEM
    certificate: str  # PEM
    key: str  # PEM, of the certificate
    policy_key: str  # hexadecimal
    received_ms: int  # by this machine's clock
    lifetime_seconds: int  # of the certificate, from then on

    @property
    def shown(self) -> NodeCertificate:
        """What the ingress gets to see."""
        return NodeCertificate(
            self.authority.encode(), self.certificate.encode(), self.key.encode(), bytes.fromhex(self.policy_key)
        )

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        return _key(self.key)

    def is_due(self, now_ms: int) -> bool:
        """Whether it is time for the next certificate: after two thirds of this one's life, or when the clock jumped."""
        return not 0 <= now_ms - self.received_ms < self.lifetime_seconds * 1000 * 2 / 3

    def ends_ms(self) -> int:
        """By this machine's clock."""
        return self.received_ms + self.lifetime_seconds * 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """A certificate that is asked for."""

    key: str  # PEM
    csr: str  # PEM

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        return _key(self.key)

    @property
    def request(self) -> x509.CertificateSigningRequest:
        return x509.load_pem_x509_csr(self.csr.encode())


def load(state_dir: Path) -> Identity | None:
    """None: the node was not enrolled. ValueError: the file is damaged. OSError: it cannot be read."""
    file = state_dir / IDENTITY
    try:
        return msgspec.json.decode(file.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, and enrol with another token") from error


def store(state_dir: Path, identity: Identity) -> None:
    _write(state_dir / IDENTITY, msgspec.json.encode(identity))
    (state_dir / ASKED).unlink(missing_ok=True)


def asked(state_dir: Path) -> Asked:
    """What is asked for at the moment: a new key, where nothing is."""
    file = state_dir / ASKED
    try:
        return msgspec.json.decode(file.read_bytes(), type=Asked)
    except (FileNotFoundError, msgspec.DecodeError):
        key = ec.generate_private_key(ec.SECP256R1())
        made = Asked(private_pem(key).decode(), csr_pem(new_request(key)))
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, msgspec.json.encode(made))
        return made


def forget_asked(state_dir: Path) -> None:
    """The platform will not give it: the next request is another one."""
    (state_dir / ASKED).unlink(missing_ok=True)


class Shown:
    """What the node shows to the ingress: its certificate, or the credential where it was not enrolled. See `line.Credential`."""

    def __init__(self, state_dir: Path, credential_file: Path) -> None:
        self._state_dir, self._credential_file = state_dir, credential_file

    def __call__(self) -> str | NodeCertificate:
        identity = load(self._state_dir)
        return self._credential_file.read_text("utf-8") if identity is None else identity.shown


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is of another kind: delete the file, and enrol with another token")
    return key


def _write(file: Path, content: bytes) -> None:
    """Replaces the file as a whole, and has it on the disk when this returns."""
    incoming = file.with_name(file.name + ".incoming")
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    incoming.replace(file)
