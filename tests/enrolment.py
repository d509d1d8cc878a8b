"""A platform that enrols nodes, as processes: gateway, command worker, registry, ingress with TLS. And hostile neighbours."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID, uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge_agent.identity import Identity
from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from streams.ingress.transport import NodeCertificate
from streams.pki.authority import Authority, load, make, private_pem
from streams.pki.identity import NodeIdentity
from streams.pki.messages import SIGNATURE_HEADER
from streams.settings import authority_files
from tests.gateway_platform import OPERATOR_TOKEN, Api, Json, Platform, running

CERTIFICATE_SECONDS = 10


@dataclass(slots=True)
class Enrolling:
    """A running platform, and the operator's way to its API."""

    platform: Platform
    ingress: str  # where credentials are shown
    ingress_tls: str  # where certificates are

    @property
    def url(self) -> str:
        return self.platform.graphql.removesuffix("/graphql")

    @property
    def authority(self) -> Authority:
        return load(*authority_files(self.platform.logs))

    def operator(self) -> Api:
        return Api(self.platform, OPERATOR_TOKEN)


@contextmanager
def enrolling(stack: Stack, logs: Path) -> Iterator[Enrolling]:
    plain, tls = free_ports(2)
    addresses = {"FW_INGRESS_LISTEN": f"127.0.0.1:{plain}", "FW_INGRESS_TLS_LISTEN": f"127.0.0.1:{tls}"}
    settings = {**addresses, "FW_CERTIFICATE_SECONDS": str(CERTIFICATE_SECONDS)}
    with running(stack, logs, ("tenants", "node_registry"), settings) as platform:
        platform.start("ingress", "infra.processes.ingress")
        platform.start("policy", "infra.processes.policy")
        platform.ready(["ingress", "policy"])
        yield Enrolling(platform, *addresses.values())


REGISTER = """mutation ($key: String, $name: String!) {
  registerNode(input: {name: $name, clientMutationId: $key, tags: ["gpu"]}) {
  __typename ... on RegisterNodeSuccess { nodeId position } ... on Error { code message } } }"""
ISSUE = """mutation ($key: String, $node: ID!, $seconds: Int) {
  issueEnrolmentToken(input: {nodeId: $node, clientMutationId: $key, validSeconds: $seconds}) {
  __typename ... on IssueEnrolmentTokenSuccess { nodeId token position } ... on Error { code message } } }"""
REVOKE = """mutation ($key: String, $node: ID!) { revokeNode(input: {nodeId: $node, reason: "stolen", clientMutationId: $key}) {
  __typename ... on RevokeNodeSuccess { nodeId position } ... on Error { code message } } }"""
SET_MODE = """mutation ($key: String, $node: ID!, $mode: NodeMode!) {
  setNodeMode(input: {nodeId: $node, mode: $mode, clientMutationId: $key}) {
  __typename ... on SetNodeModeSuccess { nodeId mode position } ... on Error { code message } } }"""
CHANGE = """mutation ($key: String, $node: ID!, $tenants: [ID!]) {
  changeNode(input: {nodeId: $node, tenants: $tenants, clientMutationId: $key}) {
  __typename ... on ChangeNodeSuccess { nodeId position } ... on Error { code message } } }"""
NODE = """query ($id: ID!, $at: Position) { node(id: $id, after: $at) {
  id name tenants tags mode enrolment certificateSerial certificateUntil revokedAt registeredAt } }"""


async def token_for(api: Api, name: str) -> tuple[str, str]:
    """Registers a node and issues a token: (node id, token)."""
    made = await api.made(REGISTER, name=name)
    assert made["__typename"] == "RegisterNodeSuccess", made
    issued = await api.made(ISSUE, node=made["nodeId"], seconds=3600)
    assert issued["__typename"] == "IssueEnrolmentTokenSuccess", issued
    return made["nodeId"], issued["token"]


async def node(api: Api, node_id: str, position: str) -> Json:
    found = (await api.data(NODE, id=node_id, at=position))["node"]
    assert isinstance(found, dict)
    return found


def another_authority() -> Authority:
    certificate, key = make(datetime.now(UTC))
    loaded = load_pem_private_key(key, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return Authority(x509.load_pem_x509_certificate(certificate), loaded)


def certificate(
    signed_by: Authority,
    node_id: str,
    enrolment_id: UUID | None = None,
    seconds: float = 3600,
    trusts: Authority | None = None,
) -> NodeCertificate:
    """A certificate that nobody asked for."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC).replace(microsecond=0)
    identity = NodeIdentity(node_id, enrolment_id or uuid4(), now + timedelta(seconds=seconds))
    pem = signed_by.node_certificate(identity, key.public_key(), x509.random_serial_number(), now)
    return NodeCertificate((trusts or signed_by).certificate_pem, pem, private_pem(key))


def an_identity(node_id: str = "fra-1") -> Identity:
    """As a node keeps it; its certificate was received at 1000 s and is good for five minutes."""
    ours = another_authority()
    shown = certificate(ours, node_id)
    pems = (ours.certificate_pem.decode(), shown.certificate.decode(), shown.key.decode())
    return Identity(node_id, uuid4(), "http://p", "i:1", *pems, policy_key="00" * 32, received_ms=1_000_000, lifetime_seconds=300)


Change = Callable[[bytes, str], tuple[bytes, str]]


@contextmanager
def in_the_middle(
    url: str, *, asks: Callable[[bytes], bytes] = lambda body: body, answers: Change = lambda body, signature: (body, signature)
) -> Iterator[tuple[str, list[bytes]]]:
    """Somebody between node and platform, who reads and changes what they like. Gives their address and what they read."""
    to = url.removeprefix("http://")
    seen: list[bytes] = []

    class Between(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that the library calls
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(str(self.headers).encode() + body)
            connection = http.client.HTTPConnection(to, timeout=180)
            connection.request("POST", self.path, asks(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content, signature = answers(response.read(), response.headers.get(SIGNATURE_HEADER, ""))
            connection.close()
            self.send_response(response.status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header(SIGNATURE_HEADER, signature)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def until(true: Callable[[], bool], seconds: float = 180) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)
