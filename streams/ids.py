"""Ids: new ones are UUIDv7, those that can be derived are UUIDv5, so that saying something twice is saying it once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha1
from typing import Final
from uuid import UUID, uuid5

import uuid_utils.compat
from asyncpg.pgproto.pgproto import UUID as CUUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
NAMESPACE: Final = UUID("5d8ef0d2-4f0b-5b6c-9a53-2f6f0e1a7c11")
OPERATOR_TENANT: Final = uuid5(NAMESPACE, "operator")
"""Tenant of records that belong to no tenant: nodes, publishers with an unknown key."""


def new_id() -> UUID:
    """A new UUIDv7: unique, ordered by time. Only for shells; the domain gets its ids handed in."""
    return uuid_utils.compat.uuid7()


def derive(namespace: UUID, *parts: object) -> UUID:
    """The same UUIDv5 for the same parts. Parts are length-prefixed, so ("ab", "c") is not ("a", "bc")."""
    return _uuid5(namespace, derivation(*parts))


def derivation(*parts: object) -> bytes:
    """The name that `derive` hashes; that of more parts begins with that of fewer."""
    return "".join([f"{len(s)}:{s}" for s in map(str, parts)]).encode()


def derive_named(namespace: UUID, name: bytes) -> UUID:
    """`derive` of the parts whose `derivation` this is."""
    return _uuid5(namespace, name)


def _uuid5(namespace: UUID, name: bytes) -> UUID:
    """uuid5 of the standard library in a quarter of the time: every decision and outcome is identified like this."""
    digest = bytearray(sha1(namespace.bytes + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return CUUID(bytes(digest))


def command_id(tenant_id: UUID, client_key: str) -> UUID:
    """Id of the command that a client's idempotency key stands for."""
    return derive(tenant_id, "command", client_key)


def wish_id(command: UUID, issued_at: datetime) -> UUID:
    """What a command that was issued at a time stands for. The same key, used anew when it is long forgotten, is another wish.

    It takes the place of the command in `event_id` and `outcome_id`: else what is decided then would bear the ids of old events.
    """
    return derive(command, "issued", (issued_at - _EPOCH) // _MILLISECOND)


def event_id(command: UUID, n: int) -> UUID:
    """Id of the n-th event (from 0) that a command led to (`wish_id`): derive(command, "event", n)."""
    return _uuid5(command, b"5:event%d:%d" % (len(str(n)), n))


def outcome_id(command: UUID) -> UUID:
    """Id of the outcome of a command (`wish_id`): derive(command, "outcome")."""
    return _uuid5(command, b"7:outcome")


@lru_cache(maxsize=4096)
def node_uuid(node_id: str) -> UUID:
    """Aggregate id of a media server node."""
    return derive(NAMESPACE, "node", node_id)
