"""Which node calls, and whether it still may: by its certificate, or by a credential where it has none.

Invariant: whom a node speaks for is what the registry says of it, not what the node shows. A node that was enrolled speaks with
certificates of that enrolment alone; one that was revoked does not speak. A call that lasts ends within a second of the node's
revocation, and with the certificate that it was begun with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar
from uuid import UUID

import grpc.aio
from cryptography import x509

from streams.errors import Rejected
from streams.ids import node_uuid
from streams.ingress.credentials import NodeCredential, verify
from streams.pki.identity import identity_of

UNAUTHENTICATED: Final = "UNAUTHENTICATED"
REVOKED: Final = "NODE_REVOKED"
Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Standing:
    """What the registry says of a node."""

    owner: UUID  # its tenant; the operator's own id for nodes of the operator
    tenants: frozenset[UUID] | None  # whom it serves; None: everybody
    enrolment_id: UUID | None = None  # None: it has no certificates that are good
    revoked: bool = False


class Nodes(Protocol):
    """Where the registry is known (`projections.node_feed`; the ingress may not know it)."""

    async def known(self) -> None:
        """Until it is; Transient when that takes long."""

    def standing(self, node: UUID) -> Standing | None: ...
    def watched(self, node: UUID) -> AbstractContextManager[asyncio.Event]: ...


class Admission:
    """Decides who may call. `nodes` None: an ingress that knows of no certificates and no registry."""

    def __init__(self, secret_key: bytes, nodes: Nodes | None = None) -> None:
        self._secret_key, self._nodes = secret_key, nodes

    async def admitted(self, context: grpc.aio.ServicerContext[Request, Response]) -> NodeCredential:
        """Who calls. Raises Rejected with a sentence for the node, and Transient where the registry is not known."""
        if self._nodes is not None:
            await self._nodes.known()
        pem = b"".join(context.auth_context().get("x509_pem_cert", ()))
        if not pem:
            return self._by_credential(context)
        # The handshake has checked that the authority signed it and that it has not ended.
        try:
            identity = identity_of(x509.load_pem_x509_certificate(pem))
        except ValueError as error:
            raise Rejected(UNAUTHENTICATED, "the certificate is not of a node: enrol with `fw edge enroll`") from error
        if identity.not_after <= datetime.now(UTC):  # a connection may be older than the handshake's word
            raise Rejected(UNAUTHENTICATED, "the certificate of this connection has ended: show the next")
        standing = self._standing(identity.node_id)
        if standing is None:
            raise Rejected(UNAUTHENTICATED, "nobody registered this node: register it, and enrol with `fw edge enroll`")
        self._check(standing, identity.enrolment_id)
        return NodeCredential(
            identity.node_id,
            standing.tenants,
            datetime.now(UTC),
            owner=standing.owner,
            enrolment_id=identity.enrolment_id,
            not_after=identity.not_after,
        )

    async def while_admitted(self, credential: NodeCredential, work: Coroutine[None, None, None]) -> None:
        """Runs work as long as the node may speak. Raises Rejected when it may not any more, and whatever the work raises."""
        if self._nodes is None:
            await work
            return
        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(self._no_more(credential, self._nodes))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _no_more(self, credential: NodeCredential, nodes: Nodes) -> None:
        """Raises Rejected as soon as the node may not speak any more."""
        left = None if credential.not_after is None else (credential.not_after - datetime.now(UTC)).total_seconds()
        with nodes.watched(node_uuid(credential.node_id)) as changed:
            try:
                async with asyncio.timeout(left):
                    while True:
                        standing = nodes.standing(node_uuid(credential.node_id))
                        if standing is not None:
                            self._check(standing, credential.enrolment_id)
                            if credential.enrolment_id is not None and standing.tenants != credential.tenants:
                                raise Rejected("NODE_CHANGED", "the node serves other tenants now: connect again")
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                raise Rejected(UNAUTHENTICATED, "the certificate of this connection has ended: show the next") from None

    def _by_credential(self, context: grpc.aio.ServicerContext[Request, Response]) -> NodeCredential:
        metadata = dict(context.invocation_metadata() or ())
        scheme, _, text = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise Rejected(UNAUTHENTICATED, "send the node credential as metadata `authorization: Bearer …`")
        credential = verify(self._secret_key, text)
        standing = self._standing(credential.node_id)
        if standing is not None:
            self._check(standing, None)
        return credential

    def _standing(self, node_id: str) -> Standing | None:
        return None if self._nodes is None else self._nodes.standing(node_uuid(node_id))

    @staticmethod
    def _check(standing: Standing, enrolment_id: UUID | None) -> None:
        """Raises Rejected. `enrolment_id` None: the node shows a credential and no certificate."""
        if standing.revoked:
            raise Rejected(REVOKED, "this node was revoked: enrol it anew, with a token that was issued since")
        if standing.enrolment_id != enrolment_id:
            if enrolment_id is None:
                raise Rejected(UNAUTHENTICATED, "this node was enrolled: it must show its certificate, at the TLS address")
            raise Rejected(REVOKED, "this node was enrolled anew since: only certificates of that enrolment are good")
