"""Tokens of viewers: signed by the tenant, verified with the keys of its policy. No clock, no I/O.

Invariants
* The algorithm is the key's, never the token's choice: a token that names another one, or none, is refused before anything is
  verified. A key of the wrong kind or curve verifies nothing.
* A claim that restricts and cannot be understood refuses. A claim that we do not know is not looked at.
* What the viewer is told names the claim that failed, and nothing of the key or of the token.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from math import isfinite
from typing import Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from streams.generated import SigningAlgorithm, SigningKey
from streams.privacy.envelope import SUBJECT_MAX_CHARACTERS

LEEWAY_SECONDS: Final = 30
MAX_TOKEN_CHARACTERS: Final = 4096
CANDIDATES: Final = 4  # tokens of one request that are looked at
REMEMBERED: Final = 2048  # verified tokens: at most 8 MiB
_ALGORITHMS: Final = {SigningAlgorithm.ES256: "ES256", SigningAlgorithm.EDDSA: "EdDSA"}
_PARAMETERS: Final = ("jwt", "tkn", "token")
_SIGNATURES: Final = jwt.PyJWS(algorithms=sorted(_ALGORITHMS.values()))
_Key: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey
_Network: TypeAlias = IPv4Network | IPv6Network


class TokenFault(Enum):
    """Why a token opens nothing."""

    MISSING = "MISSING"
    INVALID = "INVALID"
    EXPIRED = "EXPIRED"
    MISMATCH = "MISMATCH"  # good, but for another stream, audience, address or country


class TokenRefused(Exception):
    """A token that opens nothing, and a sentence that says why."""

    def __init__(self, fault: TokenFault, message: str) -> None:
        super().__init__(fault, message)
        self.fault, self.message = fault, message


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who comes with a token, as the media server tells."""

    names: frozenset[str]  # of the stream: any of them may be in the token
    audience: str | None  # that the policy wants; None: any
    address: str
    country: str | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a good token says of its bearer."""

    viewer: str | None
    origins: tuple[str, ...] | None  # of the page that it was made for; None: it does not say


def offered_tokens(token: str, url: str) -> Sequence[str]:
    """What a viewer offers that looks like a JWT: the media server's token line, then parameters of the URL."""
    found = (text for text in (token, *_parameters(url)) if text.count(".") == 2)
    return tuple(dict.fromkeys(found))[:CANDIDATES]


def verify_any(tokens: Sequence[str], keys: Iterable[SigningKey], bearer: Bearer, now: datetime) -> Verified:
    """The first good token. TokenRefused: none is, with the fault of the first."""
    if not tokens:
        raise TokenRefused(TokenFault.MISSING, "a token is needed: `?jwt=` in the URL, signed with a key of the tenant")
    by_id = {key.key_id: key for key in keys}
    first: TokenRefused | None = None
    for token in tokens:
        try:
            return verify(token, by_id, bearer, now)
        except TokenRefused as refused:
            first = first or refused
    raise first or TokenRefused(TokenFault.MISSING, "no token")


def verify(token: str, keys: Mapping[str, SigningKey], bearer: Bearer, now: datetime) -> Verified:
    """What a token says, if it is one of these keys', of this time and for this bearer. TokenRefused: it is not."""
    header = _header(token)
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise TokenRefused(TokenFault.INVALID, "the token names no key: set `kid` in its header")
    key = keys.get(kid)
    if key is None:
        raise TokenRefused(TokenFault.INVALID, "the token's `kid` is no signing key of the tenant, or it was removed")
    algorithm = _ALGORITHMS.get(key.algorithm)
    if algorithm is None or header.get("alg") != algorithm:
        raise TokenRefused(TokenFault.INVALID, f"the token's `alg` is not that of its key ({algorithm})")
    if "crit" in header or "b64" in header:
        raise TokenRefused(TokenFault.INVALID, "the token's header asks for extensions (`crit`, `b64`) that are not supported")
    claims = _claims(token, algorithm, key.public_key)
    _check_times(claims, now.timestamp())
    _check_audience(claims, bearer.audience)
    viewer = _check_stream(claims, bearer.names)
    _check_address(claims, bearer.address)
    _check_country(claims, bearer.country)
    return Verified(viewer, _strings(claims, "origin") if "origin" in claims else None)


def check_public_key(algorithm: SigningAlgorithm, public_key: bytes) -> None:
    """ValueError: these bytes (DER, SubjectPublicKeyInfo) are no public key for that algorithm."""
    _public_key(_ALGORITHMS.get(algorithm, ""), public_key)


def _header(token: str) -> Mapping[str, object]:
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise TokenRefused(TokenFault.INVALID, f"the token has more than {MAX_TOKEN_CHARACTERS} characters")
    return _json_object(token.partition(".")[0])


def _json_object(part: str) -> Mapping[str, object]:
    try:
        found = orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:  # not base64, not ASCII, not JSON
        raise TokenRefused(TokenFault.INVALID, "the token is no JWT") from None
    if not isinstance(found, dict):
        raise TokenRefused(TokenFault.INVALID, "the token is no JWT")
    return found


@lru_cache(maxsize=REMEMBERED)
def _claims(token: str, algorithm: str, public_key: bytes) -> Mapping[str, object]:
    """Claims of a token whose signature is this key's; remembered, for players ask again and again with the same."""
    try:
        payload = _SIGNATURES.decode(token, _public_key(algorithm, public_key), algorithms=[algorithm])
    except (jwt.InvalidTokenError, ValueError):
        raise TokenRefused(TokenFault.INVALID, "the token's signature is not that of its key") from None
    try:
        claims = orjson.loads(payload)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise TokenRefused(TokenFault.INVALID, "the token's claims are no JSON object")
    return claims


@lru_cache(maxsize=1024)
def _public_key(algorithm: str, public_key: bytes) -> _Key:
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no public key: DER, SubjectPublicKeyInfo is wanted") from None
    if algorithm == "ES256" and isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    if algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey):
        return key
    raise ValueError("not a key for this algorithm: ES256 needs P-256, EdDSA needs Ed25519")


def _check_times(claims: Mapping[str, object], now: float) -> None:
    if "exp" not in claims:
        raise TokenRefused(TokenFault.INVALID, "the token never expires: set `exp`")
    if _seconds(claims, "exp") <= now - LEEWAY_SECONDS:
        raise TokenRefused(TokenFault.EXPIRED, "the token has expired (`exp`)")
    if "nbf" in claims and _seconds(claims, "nbf") > now + LEEWAY_SECONDS:
        raise TokenRefused(TokenFault.INVALID, "the token is not good yet (`nbf`)")


def _seconds(claims: Mapping[str, object], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TokenRefused(TokenFault.INVALID, f"the token's `{name}` is no time")
    return value


def _check_audience(claims: Mapping[str, object], wanted: str | None) -> None:
    if wanted is not None and wanted not in _strings(claims, "aud"):
        raise TokenRefused(TokenFault.MISMATCH, "the token is for another audience (`aud`)")


def _check_stream(claims: Mapping[str, object], names: frozenset[str]) -> str | None:
    """Who the viewer is. A token names its stream in `stream`, and the viewer in `sub`; or the stream in `sub`, and the viewer
    in `viewer`. One that names none is good for all streams of the tenant."""
    subject, viewer = _string(claims, "sub"), _string(claims, "viewer")
    if "stream" in claims:
        if names.isdisjoint(_strings(claims, "stream")):
            raise TokenRefused(TokenFault.MISMATCH, "the token is for another stream (`stream`)")
        viewer = viewer or subject
    elif subject is not None and subject not in names:
        advice = "name the stream in `sub`, or in `stream` where `sub` is the viewer"
        raise TokenRefused(TokenFault.MISMATCH, f"the token is for another stream (`sub`): {advice}")
    return viewer if viewer and len(viewer) <= SUBJECT_MAX_CHARACTERS else None


def _check_address(claims: Mapping[str, object], address: str) -> None:
    """`ip`, or `ipa` as MistServer calls it: an address, a network, or a list of them."""
    for name in ("ip", "ipa"):
        if name in claims and not is_in_networks(address, _strings(claims, name)):
            raise TokenRefused(TokenFault.MISMATCH, f"the token is for another address (`{name}`)")


def _check_country(claims: Mapping[str, object], country: str | None) -> None:
    if "countries" in claims and (country is None or country not in {c.upper() for c in _strings(claims, "countries")}):
        raise TokenRefused(TokenFault.MISMATCH, "the token is for other countries (`countries`)")


def is_in_networks(address: str, networks: Iterable[str]) -> bool:
    """Whether an address is one of these, or in one of these networks. What is no address or network contains nothing."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(
        found in network for network in map(_network, networks) if network is not None and network.version == found.version
    )


def is_network(text: str) -> bool:
    return _network(text) is not None


@lru_cache(maxsize=1024)
def _network(text: str) -> _Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _string(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise TokenRefused(TokenFault.INVALID, f"the token's `{name}` is no text")
    return value


def _strings(claims: Mapping[str, object], name: str) -> tuple[str, ...]:
    """A claim that is a text or a list of texts; empty where there is none."""
    value = claims.get(name, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise TokenRefused(TokenFault.INVALID, f"the token's `{name}` is neither a text nor a list of texts")
    return tuple(values)


def _parameters(url: str) -> Sequence[str]:
    if "?" not in url:
        return ()
    try:
        found = parse_qs(urlsplit(url).query, max_num_fields=64)
    except ValueError:
        return ()
    return [value for name in _PARAMETERS for value in found.get(name, ())]
