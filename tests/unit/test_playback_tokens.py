"""Tokens of viewers: what opens, and everything that must not."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from streams.generated import SigningAlgorithm, SigningKey
from streams.playback.tokens import (
    Bearer,
    TokenFault,
    TokenRefused,
    Verified,
    check_public_key,
    offered_tokens,
    verify,
    verify_any,
)
from tests.playback import EC, ED, NOON, NOON_SECONDS, der, signing_key, token

BEARER = Bearer(frozenset({"pblobby", "lobby"}), None, "198.51.100.7", "NL")
KEYS = {"k1": signing_key(), "ed": signing_key(ED, "ed")}
Fault = TokenFault


def part(value: Any) -> str:
    return urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def fault(text: str, bearer: Bearer = BEARER, keys: dict[str, SigningKey] | None = None) -> TokenFault:
    with pytest.raises(TokenRefused) as refused:
        verify(text, keys or KEYS, bearer, NOON)
    assert text not in refused.value.message
    return refused.value.fault


@pytest.mark.parametrize("text", [token(), token(ED, "ed"), token(sub="pblobby"), token(sub="lobby", nbf=NOON_SECONDS + 10)])
def test_a_token_of_a_key_of_the_tenant_opens(text: str) -> None:
    assert verify(text, KEYS, BEARER, NOON) == Verified(None, None)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": NOON_SECONDS - 30}, Fault.EXPIRED),
        ({"exp": NOON_SECONDS - 29}, None),  # clocks differ
        ({"exp": None}, Fault.INVALID),
        ({"exp": "tomorrow"}, Fault.INVALID),
        ({"exp": True}, Fault.INVALID),
        ({"exp": 1e400}, Fault.INVALID),
        ({"nbf": NOON_SECONDS + 31}, Fault.INVALID),
        ({"nbf": "now"}, Fault.INVALID),
        ({"sub": "other"}, Fault.MISMATCH),
        ({"sub": 7}, Fault.INVALID),
        ({"sub": "*"}, Fault.MISMATCH),
        ({"stream": "other", "sub": "lobby"}, Fault.MISMATCH),
        ({"stream": ["other", "pblobby"]}, None),
        ({"stream": {}}, Fault.INVALID),
        ({"ip": "198.51.100.7"}, None),
        ({"ip": "198.51.100.0/24"}, None),
        ({"ip": ["203.0.113.1", "198.51.100.0/24"]}, None),
        ({"ip": "198.51.100.8"}, Fault.MISMATCH),
        ({"ip": "nonsense"}, Fault.MISMATCH),
        ({"ip": []}, Fault.MISMATCH),
        ({"ip": 3}, Fault.INVALID),
        ({"ipa": "198.51.100.8"}, Fault.MISMATCH),
        ({"countries": ["nl", "BE"]}, None),
        ({"countries": ["DE"]}, Fault.MISMATCH),
        ({"countries": "NL"}, None),
        ({"countries": [7]}, Fault.INVALID),
        ({"unknown": {"deep": [1]}}, None),
    ],
)
def test_claims(claims: dict[str, Any], expected: TokenFault | None) -> None:
    text = token(**claims)
    if expected is None:
        verify(text, KEYS, BEARER, NOON)
    else:
        assert fault(text) is expected


@pytest.mark.parametrize(
    ("claims", "is_good"),
    [({"aud": "site"}, True), ({"aud": ["x", "site"]}, True), ({"aud": "x"}, False), ({}, False), ({"aud": []}, False)],
)
def test_the_audience_that_the_policy_wants(claims: dict[str, Any], is_good: bool) -> None:
    bearer = Bearer(BEARER.names, "site", "", None)
    if is_good:
        verify(token(**claims), KEYS, bearer, NOON)
    else:
        assert fault(token(**claims), bearer) is Fault.MISMATCH


@pytest.mark.parametrize(
    ("claims", "viewer"),
    [
        ({"sub": "pblobby"}, None),
        ({"sub": "pblobby", "viewer": "anna"}, "anna"),
        ({"stream": "lobby", "sub": "anna"}, "anna"),
        ({"stream": "lobby", "sub": "anna", "viewer": "eva"}, "eva"),
        ({"viewer": "a" * 2000}, None),
    ],
)
def test_who_the_viewer_is(claims: dict[str, Any], viewer: str | None) -> None:
    assert verify(token(**claims), KEYS, BEARER, NOON).viewer == viewer


def test_an_address_of_a_country_that_is_not_known_is_of_none() -> None:
    unknown = Bearer(BEARER.names, None, "", None)
    assert fault(token(countries=["NL"]), unknown) is Fault.MISMATCH
    assert fault(token(ip="0.0.0.0/0"), unknown) is Fault.MISMATCH


def test_an_ipv4_address_may_be_written_as_ipv6() -> None:
    verify(token(ip="198.51.100.0/24"), KEYS, Bearer(BEARER.names, None, "::ffff:198.51.100.7", None), NOON)


HMAC_HEADER = {"alg": "HS256", "kid": "k1", "typ": "JWT"}


def hs256_with_public_key() -> str:
    """The classic: the public key, which everybody may have, as the secret of an HMAC."""
    pem = EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{part(HMAC_HEADER)}.{part({'exp': NOON_SECONDS + 3600})}"
    return f"{signed}.{part(hmac.digest(pem, signed.encode(), 'sha256'))}"


def unsigned(alg: str) -> str:
    return f"{part({'alg': alg, 'kid': 'k1'})}.{part({'exp': NOON_SECONDS + 3600})}."


def with_header(**more: Any) -> str:
    """A good signature under a header that asks for something."""
    signed = f"{part({'alg': 'ES256', 'kid': 'k1', **more})}.{part({'exp': NOON_SECONDS + 3600})}"
    algorithm = ECAlgorithm(ECAlgorithm.SHA256)
    return f"{signed}.{part(algorithm.sign(signed.encode(), EC))}"


def test_what_is_written_by_hand_here_would_open() -> None:
    """Or the hostile ones would prove nothing."""
    verify(with_header(), KEYS, BEARER, NOON)


@pytest.mark.parametrize(
    "text",
    [
        hs256_with_public_key(),
        unsigned("none"),
        unsigned("None"),
        unsigned("ES256"),
        token(kid=None),
        token(kid="k2"),
        token(ED, "k1"),  # EdDSA under the id of an ES256 key
        token(Ed25519PrivateKey.generate(), "ed"),  # somebody else's key
        with_header(crit=["exp"]),
        with_header(b64=True),
        f"{token()}x",
        token()[:-4] + "AAAA",
        ".".join([*token().split(".")[:2], ""]),
        f"{part([1])}.{part({})}.{part(b'x')}",
        f"{part({'alg': 'ES256', 'kid': ['k1']})}.{part({})}.{part(b'x' * 64)}",
        "a.b.c",
        "..",
        "é.é.é",
        "\0.\0.\0",
        "a" * 5000 + ".b.c",
        f"{part({'alg': 'ES256', 'kid': 'k1', 'jwk': {'kty': 'oct', 'k': 'AAAA'}})}.{part({'exp': 9e9})}.{part(b'x' * 64)}",
    ],
)
def test_hostile_tokens_open_nothing(text: str) -> None:
    assert fault(text) is Fault.INVALID


@given(st.text(max_size=200) | st.text(alphabet="ey.JhbGciOi_-=", max_size=200))
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(TokenRefused):
        verify(text, KEYS, BEARER, NOON)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_wrong_byte_is_enough(position: int, by: int) -> None:
    good = GOOD.encode()
    at = position % len(good)
    changed = bytes([*good[:at], good[at] ^ by, *good[at + 1 :]]).decode("latin-1")
    try:
        verify(changed, KEYS, BEARER, NOON)
    except TokenRefused:
        return
    assert _same_bytes(changed)  # unused bits of the last character of a base64 text: the same token


GOOD = token(sub="lobby")


def _same_bytes(changed: str) -> bool:
    from base64 import urlsafe_b64decode

    def decoded(text: str) -> list[bytes]:
        return [urlsafe_b64decode(p + "=" * (-len(p) % 4)) for p in text.split(".")]

    return decoded(changed)[2] == decoded(GOOD)[2]


def test_a_key_of_the_wrong_curve_or_kind_verifies_nothing() -> None:
    p384 = generate_private_key(SECP384R1())
    for public, algorithm in (
        (der(p384), SigningAlgorithm.ES256),
        (der(ED), SigningAlgorithm.ES256),
        (der(EC), SigningAlgorithm.EDDSA),
    ):
        with pytest.raises(ValueError, match="not a key for this algorithm"):
            check_public_key(algorithm, public)
        text = token(EC, "k1") if algorithm is SigningAlgorithm.ES256 else token(ED, "k1")
        assert fault(text, keys={"k1": SigningKey("k1", algorithm, public)}) is Fault.INVALID
    with pytest.raises(ValueError, match="no public key"):
        check_public_key(SigningAlgorithm.ES256, b"junk")
    check_public_key(SigningAlgorithm.ES256, der(EC))
    check_public_key(SigningAlgorithm.EDDSA, der(ED))


def test_a_token_that_was_verified_once_is_not_good_under_another_key_of_the_same_id() -> None:
    text = token()
    verify(text, KEYS, BEARER, NOON)
    assert fault(text, keys={"k1": SigningKey("k1", SigningAlgorithm.ES256, der(generate_p256()))}) is Fault.INVALID


def generate_p256() -> Any:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1

    return generate_private_key(SECP256R1())


def test_where_a_token_is_looked_for() -> None:
    one, other = token(sub="lobby"), token(sub="pblobby")
    assert offered_tokens("113304752", "http://h/x.m3u8") == ()
    assert offered_tokens(one, f"http://h/x.m3u8?jwt={one}") == (one,)
    assert offered_tokens("4711", f"rtmp://h/live/lobby?jwt={one}&tkn={other}") == (one, other)
    assert offered_tokens("4711", "http://[bad") == ()
    assert len(offered_tokens("", "http://h/?" + "&".join(f"jwt=a.b.{n}" for n in range(50)))) == 4


def test_the_first_good_token_counts_and_else_the_first_fault() -> None:
    keys = list(KEYS.values())
    assert verify_any([token(exp=1), token(viewer="anna")], keys, BEARER, NOON).viewer == "anna"
    with pytest.raises(TokenRefused) as refused:
        verify_any([token(exp=1), "a.b.c"], keys, BEARER, NOON)
    assert refused.value.fault is Fault.EXPIRED
    with pytest.raises(TokenRefused) as refused:
        verify_any([], keys, BEARER, NOON)
    assert refused.value.fault is Fault.MISSING
