"""Media server nodes: which there are, how each proves who it is, what it is for at the moment.

Invariant: a token enrols once, with one key, before its end; only the newest token is good. A certificate is recorded before it
is signed, and belongs to one enrolment: a later enrolment, or a revocation, ends every certificate of the earlier ones. A node of
the operator needs no tenant: its boundary is the operator's own, in which there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import isfinite
from typing import assert_never, get_args
from urllib.parse import urlsplit
from uuid import UUID

from commands.decider import Decider
from commands.tenant import OfTenant
from commands.tenant import evolve as evolve_tenant
from commands.text import display_text, is_node_name
from streams.errors import Rejected
from streams.generated import (
    ChangeNode,
    Decision,
    EnrolmentTokenIssued,
    EnrolNode,
    IssueEnrolmentToken,
    NodeCertificateIssued,
    NodeChanged,
    NodeEnrolled,
    NodeMode,
    NodeModeSet,
    NodeRegistered,
    NodeRevoked,
    RegisterNode,
    RenewNodeCertificate,
    RevokeNode,
    SetNodeMode,
)

NodeCommand = RegisterNode | ChangeNode | IssueEnrolmentToken | EnrolNode | RenewNodeCertificate | SetNodeMode | RevokeNode
NodeEvent = NodeRegistered | NodeChanged | EnrolmentTokenIssued | NodeEnrolled | NodeCertificateIssued | NodeModeSet | NodeRevoked

TEXT_MAX_CHARACTERS = 200
TAGS_MAX = 32
TENANTS_MAX = 1000
TOKEN_MIN_SECONDS, TOKEN_MAX_SECONDS = 60, 7 * 24 * 60 * 60
FINGERPRINT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """The newest enrolment token. `used_by`: fingerprint of the key that it enrolled."""

    prefix: str
    hash: bytes
    expires_at: datetime
    used_by: bytes | None = None


@dataclass(frozen=True, slots=True)
class Node:
    described: NodeChanged
    mode: NodeMode = NodeMode.ACTIVE
    token: Token | None = None
    enrolment_id: UUID | None = None  # None: not enrolled, or revoked
    revoked: bool = False


def decide(command: NodeCommand, state: OfTenant[Node]) -> Sequence[Decision]:
    if isinstance(command, RegisterNode):
        return [_registered(command, state)]
    node = state.own
    if node is None:
        raise Rejected("NODE_NOT_FOUND", "There is no such node: register it first.", "nodeId")
    match command:
        case ChangeNode():
            described = _described(command, state)
            return [] if described == node.described else [described]
        case IssueEnrolmentToken():
            return [_token(command)]
        case EnrolNode():
            return _enrolled(command, node)
        case RenewNodeCertificate():
            return [_renewed(command, node)]
        case SetNodeMode(mode=mode):
            if mode is NodeMode.OTHER:
                raise Rejected("MODE_INVALID", "A node is ACTIVE, DRAINING or in MAINTENANCE: choose one of these.", "mode")
            return [] if mode is node.mode else [NodeModeSet(mode)]
        case RevokeNode(reason=reason):
            if not display_text(reason, TEXT_MAX_CHARACTERS):
                raise Rejected("REASON_INVALID", f"Say why, in 1 to {TEXT_MAX_CHARACTERS} characters on one line.", "reason")
            return [] if node.revoked and node.token is None else [NodeRevoked(reason)]
        case _:
            assert_never(command)


def _registered(command: RegisterNode, state: OfTenant[Node]) -> NodeRegistered:
    if state.own is not None:
        raise Rejected("NODE_EXISTS", "There is a node of this name already: use it, or choose another name.")
    if state.tenant is None and not state.is_operators:
        raise Rejected("TENANT_NOT_FOUND", "There is no such tenant: register it first.")
    if not is_node_name(command.name):
        message = "A node's name has 1 to 63 of a-z, 0-9, - and ., and begins and ends with a letter or digit, such as fra-1."
        raise Rejected("NAME_INVALID", message, "name")
    mark = command.node_id.removeprefix(command.name)
    if not command.node_id.startswith(command.name) or (mark == "") != state.is_operators or mark[:1] not in ("", "~"):
        # Two owners' nodes of one name must not speak as each other: the gateway gives a tenant's nodes the tenant's mark.
        raise Rejected("NODE_ID_INVALID", "The node's id does not follow from its name and owner: let the platform make it.")
    said = _described(command, state)
    return NodeRegistered(
        command.node_id,
        command.name,
        tenants=said.tenants,
        region=said.region,
        latitude=said.latitude,
        longitude=said.longitude,
        base_url=said.base_url,
        tags=said.tags,
    )


def _described(command: RegisterNode | ChangeNode, state: OfTenant[Node]) -> NodeChanged:
    """What is said of the node, if it can be so. A tenant's node serves this tenant: there is nothing to choose."""
    if command.tenants is not None and not 1 <= len(command.tenants) <= TENANTS_MAX:
        message = f"A node serves everybody (leave `tenants` out) or 1 to {TENANTS_MAX} tenants: name them."
        raise Rejected("TENANTS_INVALID", message, "tenants")
    if not state.is_operators and (command.tenants is None or len(command.tenants) != 1):
        raise Rejected("TENANTS_INVALID", "A tenant's own node serves that tenant alone: leave `tenants` out.", "tenants")
    if command.region is not None and not display_text(command.region, TEXT_MAX_CHARACTERS):
        raise Rejected("REGION_INVALID", f"A region has 1 to {TEXT_MAX_CHARACTERS} characters on one line.", "region")
    if not _is_place(command.latitude, command.longitude):
        message = "A place has both: latitude from -90 to 90 and longitude from -180 to 180, in degrees."
        raise Rejected("PLACE_INVALID", message, "latitude")
    if command.base_url is not None and not _is_base_url(command.base_url):
        message = "The base URL is like https://fra-1.example.org, with nothing behind a path: no query, no user."
        raise Rejected("BASE_URL_INVALID", message, "baseUrl")
    if len(command.tags) > TAGS_MAX or not all(is_node_name(tag) for tag in command.tags):
        message = f"A node has at most {TAGS_MAX} tags, each 1 to 63 of a-z, 0-9, - and ., such as gpu."
        raise Rejected("TAGS_INVALID", message, "tags")
    return NodeChanged(
        tenants=None if command.tenants is None else tuple(sorted(set(command.tenants))),
        region=command.region,
        latitude=command.latitude,
        longitude=command.longitude,
        base_url=command.base_url,
        tags=tuple(sorted(set(command.tags))),
    )


def _is_place(latitude: float | None, longitude: float | None) -> bool:
    if latitude is None or longitude is None:
        return latitude is longitude
    return isfinite(latitude) and isfinite(longitude) and abs(latitude) <= 90 and abs(longitude) <= 180


def _is_base_url(text: str) -> bool:
    if not display_text(text, TEXT_MAX_CHARACTERS) or " " in text:
        return False
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and not (url.query or url.fragment or "@" in url.netloc)
    except ValueError:  # a port that is no number, brackets without an end
        return False


def _token(command: IssueEnrolmentToken) -> EnrolmentTokenIssued:
    if not TOKEN_MIN_SECONDS <= command.valid_seconds <= TOKEN_MAX_SECONDS:
        message = f"A token is good for {TOKEN_MIN_SECONDS} to {TOKEN_MAX_SECONDS} seconds (7 days): choose a time between."
        raise Rejected("VALIDITY_INVALID", message, "validSeconds")
    expires_at = command.issued_at + timedelta(seconds=command.valid_seconds)
    return EnrolmentTokenIssued(command.token_prefix, command.token_hash, expires_at)


def _enrolled(command: EnrolNode, node: Node) -> Sequence[Decision]:
    token = node.token
    if token is None or (token.prefix, token.hash) != (command.token_prefix, command.token_hash):
        message = "This token is not good any more: the node has a newer one, or was revoked. Issue another token."
        raise Rejected("ENROLMENT_TOKEN_NOT_FOUND", message)
    if token.used_by not in (None, command.key_fingerprint):
        message = "This token was used already, with another key. If that was not you, revoke the node; then issue another token."
        raise Rejected("ENROLMENT_TOKEN_USED", message)
    if command.issued_at >= token.expires_at:
        raise Rejected("ENROLMENT_TOKEN_EXPIRED", "This token is too old: issue another token, and enrol before it ends.")
    _require_key(command.key_fingerprint)
    if token.used_by is not None and node.enrolment_id is not None:  # its answer was lost on the way: the same enrolment
        return [_certificate(command, node.enrolment_id)]
    enrolled = NodeEnrolled(command.enrolment_id, command.token_prefix, command.key_fingerprint)
    return [enrolled, _certificate(command, command.enrolment_id)]


def _renewed(command: RenewNodeCertificate, node: Node) -> NodeCertificateIssued:
    if node.enrolment_id != command.enrolment_id:
        message = "The node was revoked, or enrolled anew since: enrol it with another token."
        raise Rejected("NODE_NOT_ENROLLED", message)
    _require_key(command.key_fingerprint)
    return _certificate(command, command.enrolment_id)


def _require_key(fingerprint: bytes) -> None:
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise Rejected("KEY_INVALID", "A key is named by its SHA-256: send the request as documented.")


def _certificate(command: EnrolNode | RenewNodeCertificate, enrolment_id: UUID) -> NodeCertificateIssued:
    return NodeCertificateIssued(enrolment_id, command.certificate_serial, command.key_fingerprint, command.not_after)


def evolve(state: OfTenant[Node], event: Decision) -> OfTenant[Node]:
    node = _evolve_node(state.own, event) if isinstance(event, NodeEvent) else state.own
    return replace(state, own=node, tenant=evolve_tenant(state.tenant, event))


def _evolve_node(node: Node | None, event: NodeEvent) -> Node | None:
    if isinstance(event, NodeRegistered):
        place = event.latitude, event.longitude
        return Node(NodeChanged(event.tenants, event.region, *place, event.base_url, event.tags))
    if node is None:
        return None
    match event:
        case NodeChanged():
            return replace(node, described=event)
        case EnrolmentTokenIssued(token_prefix=prefix, token_hash=digest, expires_at=end):
            return replace(node, token=Token(prefix, digest, end))
        case NodeEnrolled(enrolment_id=enrolment_id, key_fingerprint=key):
            token = None if node.token is None else replace(node.token, used_by=key)
            return replace(node, token=token, enrolment_id=enrolment_id, revoked=False)
        case NodeCertificateIssued():
            return node
        case NodeModeSet(mode=mode):
            return replace(node, mode=mode)
        case NodeRevoked():
            return replace(node, token=None, enrolment_id=None, revoked=True)
        case _:
            assert_never(event)


NODE: Decider[NodeCommand, OfTenant[Node], Decision] = Decider(
    name="node",
    initial=OfTenant(),
    decide=decide,
    evolve=evolve,
    commands=frozenset(get_args(NodeCommand)),
    events=frozenset(get_args(NodeEvent)),
)
