"""The door for nodes that enrol or renew (`POST /enrol`, `POST /enrol/renew`): a proof comes in, a certificate goes out.

Invariant: nothing is signed that the log does not know. 1. the proof is checked, 2. the decision is made and stands on the log,
3. the certificate is signed and the answer, too. The same request again gets the answer that it got: a node whose answer was lost
asks again, and whoever repeats what they overheard makes no new decision. What passes is described in `streams/pki/messages.py`.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import derived
from gateway.errors import UNAVAILABLE, of_client
from gateway.runtime import Runtime
from gateway.send import Accepted, Addressed, Declined, Pending, issued_at
from projections import node_registry
from projections.node_registry import NodeRow
from streams import ids
from streams.generated import EnrolNode, RenewNodeCertificate
from streams.pki.identity import NodeIdentity, identity_of
from streams.pki.messages import (
    ENROL_PATH,
    RENEW_PATH,
    SIGNATURE_HEADER,
    Enrolled,
    EnrolRequest,
    Refused,
    RenewRequest,
    answer_message,
    csr_bytes,
    fingerprint,
    parse_csr,
    proof_of,
    renewal_message,
    signed_with,
)
from streams.telemetry import log

MAX_BODY_BYTES: Final = 16 << 10
EXPIRED_GRACE: Final = timedelta(days=30)
"""How long after its end a certificate still renews: a machine that was off for a holiday comes back by itself."""
REMEMBERED: Final = 10_000
REMEMBERED_SECONDS: Final = 600.0

Asked = TypeVar("Asked", EnrolRequest, RenewRequest)
logger = log(__name__)
answered = Counter("fw_gateway_enrolments_total", "Requests of nodes for certificates, by their end", ["what", "result"])


@dataclass(frozen=True, slots=True)
class _No(Exception):
    """Refused: what the node is told."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A certificate that is asked for, after the proof was found good."""

    node: NodeRow
    csr: x509.CertificateSigningRequest
    key: ec.EllipticCurvePublicKey
    enrolment_id: UUID


class Doors:
    """Both calls; remembers what it answered for some minutes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._answers: OrderedDict[tuple[str, bytes], tuple[float, Response]] = OrderedDict()

    def routes(self) -> Sequence[Route]:
        return (
            Route(ENROL_PATH, self._door("enrol", self._enrol), methods=["POST"]),
            Route(RENEW_PATH, self._door("renew", self._renew), methods=["POST"]),
        )

    def _door(self, what: str, call: Callable[[bytes], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def door(request: Request) -> Response:
            try:
                response = await call(await _body(request))
            except _No as no:
                answered.labels(what, no.code).inc()
                logger.warning("a node gets no certificate", what=what, code=no.code)
                return _json(no.status, Refused(no.code, no.message))
            except Exception as error:
                known = of_client(error)
                if known is None:
                    raise
                logger.warning("a part does not answer", what=what, error=repr(error))
                return _json(503, Refused(UNAVAILABLE, known[1]))
            answered.labels(what, "issued").inc()
            return response

        return door

    async def _enrol(self, body: bytes) -> Response:
        asked = _decoded(body, EnrolRequest)
        csr, key = _csr(asked.csr)
        node = await node_registry.node_of_token(self._runtime.database, asked.token_prefix)
        if node is None or not self._is_proven(node, asked, csr):
            # One answer for both: who does not have the token learns nothing.
            message = "The platform knows no such token: copy it whole, or issue another one (issueEnrolmentToken)."
            raise _No(403, "ENROLMENT_TOKEN_NOT_FOUND", message)
        assert node.token_command is not None
        assert node.token_hash is not None
        # The same token and key give the same enrolment, however often they are sent.
        enrolment_id = ids.derive(node.token_command, "enrolment", fingerprint(key).hex())
        wanted = _Wanted(node, csr, key, enrolment_id)
        command_of = self._enrolling(asked.token_prefix, node.token_hash)
        return await self._answered((asked.token_prefix, csr_bytes(csr)), wanted, command_of)

    def _is_proven(self, node: NodeRow, asked: EnrolRequest, csr: x509.CertificateSigningRequest) -> bool:
        if node.token_command is None or not node.token_hash:
            return False
        secret = derived.secret(self._runtime.secret_key, derived.ENROLMENT_TOKEN, node.token_command)
        is_ours = hmac.compare_digest(secret.hash, node.token_hash)
        return hmac.compare_digest(proof_of(secret.text, csr).encode(), asked.proof.encode()) and is_ours

    @staticmethod
    def _enrolling(prefix: str, digest: bytes) -> Callable[[_Wanted, int, datetime], EnrolNode]:
        def command(wanted: _Wanted, serial: int, until: datetime) -> EnrolNode:
            key = fingerprint(wanted.key)
            return EnrolNode(prefix, digest, wanted.enrolment_id, key, f"{serial:x}", until, issued_at())

        return command

    async def _renew(self, body: bytes) -> Response:
        asked = _decoded(body, RenewRequest)
        csr, key = _csr(asked.csr)
        certificate, identity = self._shown(asked, csr)
        if identity.not_after + EXPIRED_GRACE < datetime.now(UTC):
            days = EXPIRED_GRACE.days
            raise _No(403, "CERTIFICATE_TOO_OLD", f"The certificate ended more than {days} days ago: enrol with another token.")
        node = await node_registry.node_anywhere(self._runtime.database, ids.node_uuid(identity.node_id))
        if node is None:
            raise _No(403, "NODE_NOT_FOUND", "The platform knows no such node any more: register it, and enrol with a token.")
        wanted = _Wanted(node, csr, key, identity.enrolment_id)

        def command(wanted: _Wanted, serial: int, until: datetime) -> RenewNodeCertificate:
            return RenewNodeCertificate(wanted.enrolment_id, fingerprint(wanted.key), f"{serial:x}", until)

        return await self._answered((f"{certificate.serial_number:x}", csr_bytes(csr)), wanted, command)

    def _shown(self, asked: RenewRequest, csr: x509.CertificateSigningRequest) -> tuple[x509.Certificate, NodeIdentity]:
        """The certificate that a node has, whose key it proved to have."""
        enrolment = self._runtime.enrolment
        assert enrolment is not None
        try:
            certificate = x509.load_pem_x509_certificate(asked.certificate.encode())
            certificate.verify_directly_issued_by(enrolment.authority.certificate)
            identity = identity_of(certificate)
            is_proven = signed_with(certificate, renewal_message(csr), bytes.fromhex(asked.signature))
        except (ValueError, TypeError, InvalidSignature) as error:
            message = "This certificate is not of a node of this platform: enrol with a token."
            raise _No(403, "CERTIFICATE_UNKNOWN", message) from error
        if not is_proven:
            raise _No(403, "PROOF_INVALID", "The request is not signed by the key of the certificate: enrol with a token.")
        return certificate, identity

    async def _answered(
        self,
        request: tuple[str, bytes],
        wanted: _Wanted,
        command_of: Callable[[_Wanted, int, datetime], EnrolNode | RenewNodeCertificate],
    ) -> Response:
        known = self._answers.get(request)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        enrolment = self._runtime.enrolment
        assert enrolment is not None
        serial, now = x509.random_serial_number(), issued_at().replace(microsecond=0)
        until = now + timedelta(seconds=enrolment.certificate_seconds)
        node = wanted.node
        addressed = Addressed(
            command_of(wanted, serial, until), ids.new_id(), node.tenant_id, node.node_uuid, f"node:{node.node_id}"
        )
        match await self._runtime.sender.send(addressed, None):
            case Declined(code=code, message=message):
                raise _No(403, code, message)
            case Pending():
                raise _No(503, "PENDING", "The platform has not decided in time: send the same request again in some seconds.")
            case Accepted():
                pass
        response = self._signed(wanted, serial, now, until)
        self._remember(request, response)
        logger.info("a node has a certificate", node_id=node.node_id, until=until.isoformat(), serial=f"{serial:x}")
        return response

    def _signed(self, wanted: _Wanted, serial: int, now: datetime, until: datetime) -> Response:
        enrolment, node = self._runtime.enrolment, wanted.node
        assert enrolment is not None
        identity = NodeIdentity(node.node_id, wanted.enrolment_id, until)
        answer = Enrolled(
            node_id=node.node_id,
            tenant_id=node.tenant_id,
            certificate=enrolment.authority.node_certificate(identity, wanted.key, serial, now).decode(),
            lifetime_seconds=enrolment.certificate_seconds,
            authority=enrolment.authority.certificate_pem.decode(),
            ingress=enrolment.ingress,
            policy_key=enrolment.policy_key.hex(),
        )
        body = msgspec.json.encode(answer)
        signature = enrolment.authority.sign(answer_message(wanted.csr, body)).hex()
        headers = {SIGNATURE_HEADER: signature, "Cache-Control": "no-store"}
        return Response(body, media_type="application/json", headers=headers)

    def _remember(self, request: tuple[str, bytes], response: Response) -> None:
        enrolment = self._runtime.enrolment
        assert enrolment is not None
        # Not beyond half the life of what it holds: an old answer would be worth nothing to who asks again.
        seconds = min(REMEMBERED_SECONDS, enrolment.certificate_seconds / 2)
        self._answers[request] = time.monotonic() + seconds, response
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _No(413, "TOO_LARGE", f"A request has at most {MAX_BODY_BYTES} bytes.")
    return body


def _decoded(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _No(400, "REQUEST_INVALID", f"This is no request of a node: {error}. Use `fw edge enroll`.") from error


def _csr(pem: str) -> tuple[x509.CertificateSigningRequest, ec.EllipticCurvePublicKey]:
    try:
        return parse_csr(pem)
    except ValueError as error:
        raise _No(400, "REQUEST_INVALID", f"{error}.") from error


def _json(status: int, said: Refused) -> Response:
    return Response(msgspec.json.encode(said), status, media_type="application/json", headers={"Cache-Control": "no-store"})


def routes(runtime: Runtime) -> Sequence[Route]:
    if runtime.enrolment is not None:
        return Doors(runtime).routes()
    return [Route(path, _without_authority, methods=["POST"]) for path in (ENROL_PATH, RENEW_PATH)]


async def _without_authority(_: Request) -> Response:
    message = "This platform enrols no nodes: it has no certificate authority (FW_CA_CERT, FW_CA_KEY; `fw node authority`)."
    return _json(503, Refused("NO_AUTHORITY", message))
