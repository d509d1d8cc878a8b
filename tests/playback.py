"""What tests of playback have in common: keys of a tenant, tokens signed with them, policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from streams.generated import (
    PlaybackKind,
    PlaybackPolicy,
    SigningAlgorithm,
    SigningKey,
    StreamPolicy,
    TenantPolicy,
    TenantStanding,
)
from tests.edge_node import NOON_MS, TENANT, stream_policy

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
NOON_SECONDS = NOON_MS // 1000
PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
EC: EllipticCurvePrivateKey = generate_private_key(SECP256R1())
ED = Ed25519PrivateKey.generate()


def der(private: PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signing_key(private: PrivateKey = EC, key_id: str = "k1") -> SigningKey:
    is_ec = isinstance(private, EllipticCurvePrivateKey)
    return SigningKey(key_id, SigningAlgorithm.ES256 if is_ec else SigningAlgorithm.EDDSA, der(private))


def tenant_policy(
    *keys: SigningKey, standing: TenantStanding = TenantStanding.ACTIVE, version: int = 1, max_live_streams: int | None = None
) -> TenantPolicy:
    return TenantPolicy(TENANT, version, standing, max_live_streams, keys)


def playback(kind: PlaybackKind = PlaybackKind.PUBLIC, version: int = 1, **rules: Any) -> StreamPolicy:
    return replace(stream_policy(), playback=PlaybackPolicy(kind=kind, **rules), version=version)


def token(private: PrivateKey = EC, kid: str | None = "k1", headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
    """Good for an hour of noon, where `exp` says nothing else."""
    algorithm = "ES256" if isinstance(private, EllipticCurvePrivateKey) else "EdDSA"
    more = {**({"kid": kid} if kid else {}), **(headers or {})}
    return jwt.encode({"exp": NOON_SECONDS + 3600} | claims, private, algorithm, headers=more)
