"""How the node gets its certificates from the platform: the first with a token, each following one with the one before.

Invariant: nothing is believed that the authority did not sign: it is known by the token's pin, and later by the certificate
that is kept. What was asked for is asked for again, with the same key, until there is an answer that says yes or no.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edge_agent import identity
from edge_agent.identity import Asked, Identity
from edge_agent.metrics import now_ms
from streams.errors import Rejected, Transient
from streams.pki.authority import pin_of
from streams.pki.identity import identity_of
from streams.pki.messages import (
    ENROL_PATH,
    RENEW_PATH,
    SIGNATURE_HEADER,
    Enrolled,
    EnrolmentToken,
    EnrolRequest,
    Refused,
    RenewRequest,
    answer_message,
    fingerprint,
    proof_of,
    renewal_message,
    sign,
    signed_with,
)
from streams.telemetry import log

ANSWER_SECONDS: Final = 30.0
ANSWER_BYTES: Final = 1 << 20
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0
CHECKED_EVERY_SECONDS: Final = 30.0

logger = log(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    signature: str


def enrol(token: EnrolmentToken, platform: str, state_dir: Path) -> Identity:
    """Gets the first certificate, and keeps it. Raises Rejected (no), Transient (no answer), ValueError (not our platform)."""
    wanted = identity.asked(state_dir)
    body = EnrolRequest(token.prefix, wanted.csr, proof_of(token.secret, wanted.request))
    answer = _post(platform, ENROL_PATH, msgspec.json.encode(body))
    try:
        said = msgspec.json.decode(_accepted(answer), type=Enrolled)
        authority = x509.load_pem_x509_certificate(said.authority.encode())
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"{platform} is no platform, or a newer one: its answer cannot be read ({error})") from error
    if pin_of(authority) != token.pin:
        raise ValueError(
            f"whoever answers at {platform} is not the platform that the token is of: check the address; if it is right, "
            "somebody stands between"
        )
    found = _believed(said, answer, wanted, authority, platform)
    identity.store(state_dir, found)
    return found


def renew(known: Identity, state_dir: Path) -> Identity:
    """Gets the next certificate, and keeps it. Raises as `enrol` does."""
    wanted = identity.asked(state_dir)
    signature = sign(known.private_key, renewal_message(wanted.request)).hex()
    body = RenewRequest(known.certificate, wanted.csr, signature)
    answer = _post(known.platform, RENEW_PATH, msgspec.json.encode(body))
    try:
        said = msgspec.json.decode(_accepted(answer), type=Enrolled)
    except msgspec.DecodeError as error:
        raise ValueError(f"{known.platform} is no platform, or a newer one: its answer cannot be read ({error})") from error
    authority = x509.load_pem_x509_certificate(known.authority.encode())
    found = _believed(said, answer, wanted, authority, known.platform)
    if found.node_id != known.node_id:
        raise ValueError(f"the platform answers for another node, {found.node_id}")
    identity.store(state_dir, found)
    return found


def _believed(said: Enrolled, answer: _Answer, wanted: Asked, authority: x509.Certificate, platform: str) -> Identity:
    """The answer as an identity. Raises ValueError where the authority did not give it, to us, for this request."""
    try:
        is_said = signed_with(authority, answer_message(wanted.request, answer.body), bytes.fromhex(answer.signature))
        certificate = x509.load_pem_x509_certificate(said.certificate.encode())
        certificate.verify_directly_issued_by(authority)
        if not is_said or fingerprint(certificate.public_key()) != fingerprint(wanted.private_key.public_key()):
            raise ValueError("it is for another request")
        if identity_of(certificate).node_id != said.node_id:
            raise ValueError("it is for another node")
        bytes.fromhex(said.policy_key)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ValueError(f"the answer of {platform} was not given by its authority to this request: {error}") from error
    return Identity(
        said.node_id,
        said.tenant_id,
        platform,
        said.ingress,
        authority=said.authority,
        certificate=said.certificate,
        key=wanted.key,
        policy_key=said.policy_key,
        received_ms=now_ms(),
        lifetime_seconds=said.lifetime_seconds,
    )


def _accepted(answer: _Answer) -> bytes:
    """The body of an answer that means yes. Raises Rejected, Transient."""
    if answer.status == http.HTTPStatus.OK:
        return answer.body
    try:
        refused = msgspec.json.decode(answer.body, type=Refused)
    except msgspec.DecodeError:
        refused = Refused("HTTP_ERROR", f"the platform answers with HTTP status {answer.status}")
    if answer.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == http.HTTPStatus.TOO_MANY_REQUESTS:
        raise Transient(refused.message)
    raise Rejected(refused.code, refused.message)


def _post(platform: str, path: str, body: bytes) -> _Answer:
    """Raises Transient where nobody answers, ValueError where the address cannot be one."""
    if urlsplit(platform).scheme not in ("http", "https") or not urlsplit(platform).netloc:
        raise ValueError(f"the platform is reached at an address like https://platform.example.org, not {platform!r}")
    request = urllib.request.Request(  # noqa: S310  # of one of two schemes
        platform.rstrip("/") + path, body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with _opener().open(request, timeout=ANSWER_SECONDS) as response:
            return _Answer(response.status, response.read(ANSWER_BYTES), response.headers.get(SIGNATURE_HEADER, ""))
    except urllib.error.HTTPError as error:
        with error:
            return _Answer(error.code, error.read(ANSWER_BYTES), "")
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Transient(f"{platform} does not answer: {reason}") from error


def _opener() -> urllib.request.OpenerDirector:
    """Follows no redirects: what is posted is meant for the address that was given."""

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    return urllib.request.build_opener(NoRedirects, urllib.request.HTTPSHandler(context=ssl.create_default_context()))


@dataclass(slots=True)
class Renewal:
    """How the renewing goes, for metrics and readiness."""

    state_dir: Path
    renewed: Callable[[], None]  # told that connections should be made anew
    identity: Identity | None = None
    problem: str | None = None
    renewed_total: int = 0

    def __post_init__(self) -> None:
        self.identity = identity.load(self.state_dir)

    def seconds_left(self, at_ms: int) -> float:
        """Until the certificate ends; negative: since it did."""
        return 0.0 if self.identity is None else (self.identity.ends_ms() - at_ms) / 1000

    def told(self, at_ms: int) -> str:
        """How it is, for people."""
        if self.identity is None:
            return "none: the node shows a credential (`fw edge enroll` gives it one)"
        left = self.seconds_left(at_ms)
        state = f"good for {left:.0f} s" if left > 0 else f"ended {-left:.0f} s ago"
        return f"{state}, not renewed yet: {self.problem}" if self.problem else state

    async def run(self) -> None:
        """Renews in time, for ever; what goes wrong is tried again and said. A node that was not enrolled does nothing here."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            before, known = self.identity, await asyncio.to_thread(identity.load, self.state_dir)
            self.identity = known
            if before is not None and known is not None and known.certificate != before.certificate:
                self.renewed()  # `fw edge enroll --force` was here
            if known is None or not known.is_due(now_ms()):
                await asyncio.sleep(_until_due(known))
                continue
            try:
                self.identity = await asyncio.to_thread(renew, known, self.state_dir)
            except (Rejected, Transient, ValueError, OSError) as error:
                self._failed(error)
                # Nodes that lost the platform together do not come back in step.
                longest = min(LONGEST_PAUSE_SECONDS, known.lifetime_seconds / 20)
                await asyncio.sleep(min(pause, longest) * random.uniform(0.5, 1))
                pause *= 2
            else:
                pause, self.problem = FIRST_PAUSE_SECONDS, None
                self.renewed_total += 1
                logger.info("the certificate was renewed", lifetime_seconds=self.identity.lifetime_seconds)
                self.renewed()

    def _failed(self, error: Exception) -> None:
        problem = error.message if isinstance(error, Rejected) else str(error)
        if problem != self.problem:
            logger.warning("the certificate is not renewed yet, trying again", problem=problem)
        self.problem = problem
        if isinstance(error, Rejected):
            identity.forget_asked(self.state_dir)


def _until_due(known: Identity | None) -> float:
    """Seconds until it is worth looking again: clocks jump, and `fw edge enroll` may give this node another identity."""
    if known is None:
        return CHECKED_EVERY_SECONDS
    due_ms = known.received_ms + known.lifetime_seconds * 1000 * 2 / 3
    return min(CHECKED_EVERY_SECONDS, max(0.05, (due_ms - now_ms()) / 1000))
