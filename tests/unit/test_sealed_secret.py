"""Secrets on the log: they open for whom and what they were sealed for, and else not."""

from __future__ import annotations

from uuid import UUID

import pytest

from streams.errors import Invalid
from streams.sealed_secret import seal, unseal

SECRET, TENANT, TARGET = b"s" * 32, UUID(int=1), UUID(int=2)
URL = "rtmp://live.example.org/app/schlüssel"


def test_what_was_sealed_is_unsealed() -> None:
    sealed = seal(SECRET, TENANT, TARGET, URL)
    assert unseal(SECRET, TENANT, TARGET, sealed) == URL
    assert URL.encode() not in sealed
    assert seal(SECRET, TENANT, TARGET, URL) != sealed, "the same text twice shows that it is the same to nobody"


@pytest.mark.parametrize(
    ("secret", "tenant", "target"), [(b"t" * 32, TENANT, TARGET), (SECRET, UUID(int=3), TARGET), (SECRET, TENANT, UUID(int=3))]
)
def test_it_opens_for_nothing_else(secret: bytes, tenant: UUID, target: UUID) -> None:
    with pytest.raises(Invalid):
        unseal(secret, tenant, target, seal(SECRET, TENANT, TARGET, URL))


@pytest.mark.parametrize("broken", [b"", b"\x01", b"\x01" + bytes(12), b"\x02" + bytes(40), bytes(60)])
def test_what_is_none_is_refused(broken: bytes) -> None:
    with pytest.raises(Invalid):
        unseal(SECRET, TENANT, TARGET, broken)
