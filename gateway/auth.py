"""Who is calling. The tenant comes from the credential, never from an argument.

`Authorization: Bearer …` carries the operator's token or a tenant's API token; over a WebSocket also the payload of
connection_init. Tokens are found by their prefix and compared by SHA-256 in constant time. Answers are remembered for some
seconds, also that a token is unknown (shorter: it may just have been made).
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from gateway import derived
from streams.ids import OPERATOR_TENANT

KNOWN_SECONDS: Final = 15.0
UNKNOWN_SECONDS: Final = 1.0
REMEMBERED: Final = 10_000
OwnerOf = Callable[[str], Awaitable[tuple[UUID, bytes] | None]]


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs the platform; owns what belongs to no tenant."""

    tenant_id: UUID = OPERATOR_TENANT
    actor: str = "operator"


@dataclass(frozen=True, slots=True)
class Tenant:
    tenant_id: UUID
    actor: str  # token:PREFIX


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credential, or one that is good for nothing."""

    problem: str


Caller = Operator | Tenant | Anonymous
NO_CREDENTIAL: Final = Anonymous("No credential came with the request: send `Authorization: Bearer TOKEN`.")
MALFORMED: Final = Anonymous("The Authorization header must be `Bearer TOKEN`.")
UNKNOWN: Final = Anonymous("The token is not known: check that it was copied whole and was not revoked.")
OPERATOR: Final = Operator()


class Credentials:
    """Finds the caller of a credential."""

    def __init__(self, operator_token: str, owner_of: OwnerOf, clock: Callable[[], float] = time.monotonic) -> None:
        self._operator_token = operator_token.encode()
        self._owner_of, self._clock = owner_of, clock
        self._seen: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    def remembered(self, authorization: str | None) -> Caller | None:
        """The caller where that is known without asking the database."""
        if authorization is None:
            return NO_CREDENTIAL
        found = self._seen.get(authorization)
        return found[1] if found is not None and found[0] > self._clock() else None

    async def caller(self, authorization: str | None) -> Caller:
        known = self.remembered(authorization)
        if known is not None or authorization is None:
            return known or NO_CREDENTIAL
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            return MALFORMED
        if hmac.compare_digest(token.encode(), self._operator_token):
            return OPERATOR
        if (prefix := derived.prefix_of(token)) is None or not prefix.startswith(derived.API_TOKEN):
            return UNKNOWN
        owner = await self._owner_of(prefix)
        caller: Caller = UNKNOWN
        if owner is not None and hmac.compare_digest(bytes(owner[1]), derived.secret_hash(token)):
            caller = Tenant(owner[0], f"token:{prefix}")
        self._remember(authorization, caller, UNKNOWN_SECONDS if caller is UNKNOWN else KNOWN_SECONDS)
        return caller

    def _remember(self, authorization: str, caller: Caller, seconds: float) -> None:
        self._seen[authorization] = (self._clock() + seconds, caller)
        self._seen.move_to_end(authorization)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
