"""How a data key gets from the edge that made it to the platform, which alone can open the envelope.

Invariants
* A data key is never written down in the clear. The edge has it in memory, everywhere else it is in an envelope (HPKE, RFC 9180)
  or wrapped by the master key. Envelopes travel beside the log, never on it: a copy of the log holds nothing that opens it.
* An envelope is for one intake key, a key pair of the platform per day, which is destroyed some time later: then forgotten copies
  of the envelope (free pages of an edge's disk) open no more.

An edge makes many data keys. It seals a *courier* key to the intake key once in a while, and data keys with the courier: then
only that costs a public-key operation. It is sound because the courier lives in the memory of the process which makes the data
keys and sees all that they seal, is random, and is used under random nonces far fewer than 2^32 times.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from streams.errors import Invalid
from streams.generated import PersonalKind
from streams.privacy.people import Person
from streams.privacy.sealing import KEY_BYTES, NONCE_BYTES, new_key

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_COURIERS_KEPT: Final = 1024
SUBJECT_MAX_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class DayKeys:
    """What an edge needs of the platform for one day: whom to seal data keys to, and the secret behind pseudonyms."""

    day: date
    intake: bytes  # X25519 public key
    pseudonyms: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A data key on its way. `day`: of the intake key; `courier`: sealed to it; `body`: sealed with the courier."""

    key_id: UUID
    day: date
    courier: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """A data key and whose it is: what an envelope holds."""

    key_id: UUID
    key: bytes
    person: Person
    made_ms: int


class _Content(msgspec.Struct, array_like=True, frozen=True):
    key: bytes
    tenant_id: UUID
    kind: PersonalKind
    subject: str | None
    day: date | None
    made_ms: int


class Courier:
    """Seals data keys for the intake key of one day."""

    def __init__(self, day: date, intake: bytes) -> None:
        key = new_key()
        self._day, self._aead = day, AESGCM(key)
        self._sealed = _SUITE.encrypt(key, X25519PublicKey.from_public_bytes(intake), _info(day))

    def envelope(self, grant: Grant) -> Envelope:
        person = grant.person
        content = _Content(grant.key, person.tenant_id, person.kind, person.subject, person.day, grant.made_ms)
        nonce = os.urandom(NONCE_BYTES)
        body = nonce + self._aead.encrypt(nonce, msgspec.msgpack.encode(content), grant.key_id.bytes)
        return Envelope(grant.key_id, self._day, self._sealed, body)


class Opener:
    """Opens envelopes; remembers couriers, because many envelopes come with one."""

    def __init__(self) -> None:
        self._couriers: OrderedDict[bytes, AESGCM] = OrderedDict()

    def open(self, envelope: Envelope, intake: bytes) -> Grant:
        """`intake`: the private key of its day. Raises Invalid."""
        courier = self._courier(envelope, intake)
        try:
            plain = courier.decrypt(envelope.body[:NONCE_BYTES], envelope.body[NONCE_BYTES:], envelope.key_id.bytes)
            content = msgspec.msgpack.decode(plain, type=_Content)
        except (InvalidTag, ValueError) as error:  # ValueError: too short, or not what we write
            raise Invalid(f"the envelope of key {envelope.key_id} cannot be opened: {error!r}") from None
        if len(content.key) != KEY_BYTES or len(content.subject or "") > SUBJECT_MAX_CHARACTERS:
            raise Invalid(f"the envelope of key {envelope.key_id} holds no data key of ours")
        person = Person(content.tenant_id, content.kind, content.subject, content.day)
        return Grant(envelope.key_id, content.key, person, content.made_ms)

    def _courier(self, envelope: Envelope, intake: bytes) -> AESGCM:
        if (known := self._couriers.get(envelope.courier)) is not None:
            return known
        try:
            key = _SUITE.decrypt(envelope.courier, X25519PrivateKey.from_private_bytes(intake), _info(envelope.day))
            made = AESGCM(key)
        except (InvalidTag, ValueError) as error:
            raise Invalid(f"key {envelope.key_id} is not sealed to the intake key of {envelope.day}: {error!r}") from None
        self._couriers[envelope.courier] = made
        if len(self._couriers) > _COURIERS_KEPT:
            self._couriers.popitem(last=False)
        return made


def public_key(intake: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(intake).public_key().public_bytes_raw()


def _info(day: date) -> bytes:
    return b"frameworks data key " + day.isoformat().encode()
