"""Sealed values read: for those who show them to the tenant whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.privacy.key_store import KeyStore
from streams.privacy.sealing import key_id_of, unseal


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value as an event has it, and where it stands."""

    value: bytes
    event_id: UUID
    field: str


@dataclass(frozen=True, slots=True)
class Opened:
    """`text` is None where the key was destroyed (`is_erased`), or has not come yet from the edge that made it."""

    text: str | None
    is_erased: bool


async def opened(store: KeyStore, tenant_id: UUID, values: Sequence[Sealed]) -> list[Opened]:
    """The values, in their order, with one question to the store. Raises Transient, and Invalid: one was tampered with."""
    ids = [key_id_of(v.value) for v in values]
    keys = await store.keys(tenant_id, set(ids)) if ids else {}
    aeads = {key_id: AESGCM(key) for key_id, key in keys.items() if key is not None}
    found: list[Opened] = []
    for key_id, value in zip(ids, values, strict=True):
        if (aead := aeads.get(key_id)) is None:
            found.append(Opened(None, is_erased=key_id in keys))
            continue
        plain = unseal(aead, value.value, tenant_id=tenant_id, event_id=value.event_id, field=value.field)
        found.append(Opened(plain.decode("utf-8", "replace"), is_erased=False))
    return found
