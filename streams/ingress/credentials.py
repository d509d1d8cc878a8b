"""Node credentials: what an edge node is called and for which tenants it may speak.

Invariant: the key that signs them is derived from the master secret for this use alone, so a credential is good for nothing
else, and nothing else passes for one. A credential has no end of its own: nodes run for years; a new master secret ends all.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import jwt

from streams.errors import Rejected
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.policy_signing import PUBLIC_KEY_BYTES, public_key

AUDIENCE: Final = "fw:ingress"
ALGORITHM: Final = "HS256"


@dataclass(frozen=True, slots=True)
class NodeCredential:
    """Which node speaks, and for whom."""

    node_id: str
    tenants: frozenset[UUID] | None  # None: a node of the operator, which serves every tenant
    issued_at: datetime
    policy_key: bytes | None = None  # what the policy's signatures are verified with; None: an old credential
    owner: UUID | None = None  # as the registry has it; None: nobody registered the node
    enrolment_id: UUID | None = None  # of the certificate that it shows; None: it shows none
    not_after: datetime | None = None  # when that certificate ends

    @property
    def own_tenant(self) -> UUID:
        """Tenant of what the node says about itself: its owner; else its tenant where it has exactly one, or the operator's."""
        if self.owner is not None:
            return self.owner
        if self.tenants is not None and len(self.tenants) == 1:
            return next(iter(self.tenants))
        return OPERATOR_TENANT

    @property
    def node_uuid(self) -> UUID:
        """Aggregate id of the node's own facts."""
        return node_uuid(self.node_id)

    def serves(self, tenant_id: UUID) -> bool:
        """Whether the node may know the tenant's streams."""
        return self.tenants is None or tenant_id in self.tenants

    def may_say(self, tenant_id: UUID, aggregate_id: UUID) -> bool:
        """Whether the node may append a fact of this tenant about this aggregate.

        Nodes of the operator: any. Others: facts of their tenants; and where they serve several, so that what they say of
        themselves belongs to none of them, facts of the operator's tenant about the node itself.
        """
        return self.serves(tenant_id) or (tenant_id == self.own_tenant and aggregate_id == self.node_uuid)


def signing_key(secret_key: bytes) -> bytes:
    return hmac.digest(secret_key, b"node credential v1", "sha256")


def issue(secret_key: bytes, node_id: str, tenants: Sequence[UUID] | None, issued_at: datetime | None = None) -> str:
    """A credential as text. `tenants` None: a node of the operator. ValueError: no node id, or no tenant at all."""
    if not node_id or len(node_id) > 128 or not node_id.isprintable():
        raise ValueError("a node id has 1 to 128 printable characters")
    if tenants is not None and not tenants:
        raise ValueError("name at least one tenant, or make it a node of the operator")
    claims: dict[str, object] = {
        "aud": AUDIENCE,
        "sub": node_id,
        "iat": int((issued_at or datetime.now(UTC)).timestamp()),
        "policy_key": public_key(secret_key).hex(),
    }
    if tenants is None:
        claims["operator"] = True
    else:
        claims["tenants"] = sorted({str(t) for t in tenants})
    return jwt.encode(claims, signing_key(secret_key), ALGORITHM)


def verify(secret_key: bytes, text: str) -> NodeCredential:
    """What a credential says. Raises Rejected("UNAUTHENTICATED") with a sentence when we did not issue it."""
    try:
        claims = jwt.decode(
            text.strip(), signing_key(secret_key), [ALGORITHM], audience=AUDIENCE, options={"require": ["sub", "iat"]}
        )
        return _credential(claims)
    except (jwt.InvalidTokenError, ValueError) as error:
        raise Rejected(
            "UNAUTHENTICATED", "this node credential was not issued here: make one with `fw node credential`"
        ) from error


def read(text: str) -> NodeCredential:
    """What a credential claims, for the node that holds it and cannot check the signature. ValueError: it is none."""
    try:
        return _credential(jwt.decode(text.strip(), options={"verify_signature": False}))
    except jwt.InvalidTokenError as error:
        raise ValueError("this is no node credential: make one with `fw node credential`") from error


def _credential(claims: dict[str, object]) -> NodeCredential:
    node_id, issued_at, tenants = claims.get("sub"), claims.get("iat"), claims.get("tenants")
    if not isinstance(node_id, str) or not isinstance(issued_at, int):
        raise ValueError("claims are missing")
    if claims.get("operator") is True:
        bound = None
    elif isinstance(tenants, list) and tenants:
        bound = frozenset(UUID(str(t)) for t in tenants)
    else:
        raise ValueError("bound to nobody")
    return NodeCredential(node_id, bound, datetime.fromtimestamp(issued_at, UTC), _policy_key(claims.get("policy_key")))


def _policy_key(claim: object) -> bytes | None:
    if claim is None:
        return None
    key = bytes.fromhex(str(claim))
    if len(key) != PUBLIC_KEY_BYTES:
        raise ValueError("policy_key is no public key")
    return key
