"""The platform's signature is known by its public key; what is sealed opens for its own id and tenant alone."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import Invalid
from streams.policy_signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Signer, Verifier, public_key, webhook_secret
from streams.sealed_secret import seal, unseal
from tests.ingress import SECRET_KEY

OTHER = bytes(32)


@given(st.binary(max_size=2000))
def test_what_the_platform_signed_is_known_as_its_own(value: bytes) -> None:
    signature = Signer(SECRET_KEY).sign(value)
    assert (len(signature), len(public_key(SECRET_KEY))) == (SIGNATURE_BYTES, PUBLIC_KEY_BYTES)
    assert Verifier(public_key(SECRET_KEY)).is_good(value, signature)
    assert not Verifier(public_key(OTHER)).is_good(value, signature)
    assert Signer(SECRET_KEY).sign(value) == signature


@given(st.binary(min_size=1, max_size=500), st.data())
def test_a_single_bit_is_noticed(value: bytes, data: st.DataObject) -> None:
    whole = bytearray(value + Signer(SECRET_KEY).sign(value))
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[at // 8] ^= 1 << at % 8
    assert not Verifier(public_key(SECRET_KEY)).is_good(bytes(whole[: len(value)]), bytes(whole[len(value) :]))


@pytest.mark.parametrize("signature", [b"", b"short", bytes(64), bytes(65)])
def test_what_is_no_signature_is_none(signature: bytes) -> None:
    assert not Verifier(public_key(SECRET_KEY)).is_good(b"value", signature)


def test_what_is_no_public_key_is_said() -> None:
    with pytest.raises(ValueError, match="32"):
        Verifier(b"short")


def test_each_tenant_has_a_webhook_secret_of_its_own() -> None:
    a, b = uuid4().bytes, uuid4().bytes
    assert webhook_secret(SECRET_KEY, a) == webhook_secret(SECRET_KEY, a)
    assert len({webhook_secret(SECRET_KEY, a), webhook_secret(SECRET_KEY, b), webhook_secret(OTHER, a)}) == 3


@given(st.text(max_size=300).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)))
def test_a_sealed_secret_opens_for_its_own(text: str) -> None:
    tenant, target = uuid4(), uuid4()
    sealed = seal(SECRET_KEY, tenant, target, text)
    assert unseal(SECRET_KEY, tenant, target, sealed) == text
    assert seal(SECRET_KEY, tenant, target, text) != sealed
    damaged = bytearray(sealed)
    damaged[-1] ^= 1
    for secret_key, of_tenant, of, value in (
        (OTHER, tenant, target, sealed),
        (SECRET_KEY, uuid4(), target, sealed),
        (SECRET_KEY, tenant, uuid4(), sealed),
        (SECRET_KEY, tenant, target, bytes(damaged)),
        (SECRET_KEY, tenant, target, sealed[:10]),
        (SECRET_KEY, tenant, target, b""),
        (SECRET_KEY, tenant, target, b"\x02" + sealed[1:]),
    ):
        with pytest.raises(Invalid, match=r"sealed"):
            unseal(secret_key, of_tenant, of, value)
