"""What a gateway process holds open, and what one request carries.

Invariant: everything here is made in `main()` or in a test, in one place (gateway/app.py), and handed down; nothing is global.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from clickhouse_connect.driver.asyncclient import AsyncClient

from gateway.addresses import Buckets, Networks
from gateway.auth import Anonymous, Caller, Credentials, Operator
from gateway.balancer.balancer import Balancer
from gateway.errors import ApiError
from gateway.execution import Plans
from gateway.fanout import Fanout
from gateway.history import History
from gateway.send import Addressed, Answer, Sender
from projections.model import Database
from streams.generated import Command
from streams.geoip import Place, places
from streams.pki.authority import Authority
from streams.privacy.key_store import KeyStore
from streams.recorded import Position

RESOLVED_PER_SECOND, RESOLVED_BURST = 20, 60


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What nodes get when they prove who they are."""

    authority: Authority
    ingress: str  # host:port, as nodes reach it
    certificate_seconds: int
    policy_key: bytes  # what the policy's signatures are verified with

    @property
    def pin(self) -> str:
        return self.authority.pin


@dataclass(frozen=True, slots=True)
class Runtime:
    """The stores, the log, and who may use them."""

    database: Database
    clickhouse: AsyncClient
    sender: Sender
    fanout: Fanout
    history: History
    credentials: Credentials
    secret_key: bytes
    keys: KeyStore
    balancer: Balancer
    allows_private_pushes: bool = False  # push targets may be in a private network
    place_of: Callable[[str], Place] = field(default_factory=lambda: places(None))
    trusted_proxies: Networks = ()
    resolving: Buckets = field(default_factory=lambda: Buckets(RESOLVED_PER_SECOND, RESOLVED_BURST))  # by address
    enrolment: Enrolment | None = None  # None: the platform has no certificate authority


@dataclass(slots=True)
class Context:
    """One request: who asks, which trace it belongs to, which change it must see."""

    runtime: Runtime
    caller: Caller
    traceparent: str | None = None
    after: Position | None = None
    loaders: dict[str, object] = field(default_factory=dict)
    address: str = ""  # who asks, to count and to find a place
    plans: Plans | None = None  # of the document that runs, where they may be kept

    def tenant_id(self) -> UUID:
        """The caller's tenant. Raises ApiError for the operator and for nobody."""
        match self.caller:
            case Anonymous(problem=problem):
                raise ApiError("UNAUTHENTICATED", problem)
            case Operator():
                raise ApiError("FORBIDDEN", "The operator's token has no streams of its own: use a tenant's API token.")
            case tenant:
                return tenant.tenant_id

    def owner_id(self) -> UUID:
        """The tenant whose records the caller may list; the operator owns those of no tenant."""
        if isinstance(self.caller, Operator):
            return self.caller.tenant_id
        return self.tenant_id()

    async def send(self, command: Command, command_id: UUID, tenant_id: UUID, aggregate_id: UUID, actor: str) -> Answer:
        return await self.runtime.sender.send(Addressed(command, command_id, tenant_id, aggregate_id, actor), self.traceparent)
