"""Stories of media server nodes: registered, enrolled once a token, renewed, revoked; the operator's need no tenant."""

from __future__ import annotations

from datetime import timedelta
from functools import reduce
from uuid import UUID, uuid4

import pytest

from commands.aggregate import EMPTY, OPERATORS, beginning
from commands.boundary import decide, evolve
from commands.node import NODE, Node
from commands.tenant import OfTenant
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
    TenantRegistered,
)
from streams.ids import OPERATOR_TENANT, node_uuid
from tests.given import Given
from tests.ingress import NOON

TENANT, OTHER = uuid4(), uuid4()
FIRST, SECOND = uuid4(), uuid4()
KEY, OTHER_KEY = bytes(32), b"\1" * 32
REGISTERED = NodeRegistered("fra-1", "fra-1")
TOKEN = EnrolmentTokenIssued("fwe_abcdefgh", b"hash", NOON + timedelta(hours=1))
ENROLLED = NodeEnrolled(FIRST, "fwe_abcdefgh", KEY)
REVOKED = NodeRevoked("stolen")


def operators(*events: Decision) -> Given[object, OfTenant[Node], Decision]:
    """A node of the operator, after these events."""
    state: OfTenant[Node] = OfTenant(is_operators=True)
    return Given(NODE, reduce(NODE.evolve, events, state))  # type: ignore[arg-type]  # a story may ask anything


def tenants(*events: Decision) -> Given[object, OfTenant[Node], Decision]:
    return Given(NODE, reduce(NODE.evolve, events, NODE.initial))  # type: ignore[arg-type]


def enrol(key: bytes = KEY, enrolment: UUID = FIRST, minutes: int = 1, prefix: str = "fwe_abcdefgh") -> EnrolNode:
    at = NOON + timedelta(minutes=minutes)
    return EnrolNode(prefix, b"hash", enrolment, key, "1f", at + timedelta(days=1), at)


def certificate(enrolment: UUID = FIRST, key: bytes = KEY, minutes: int = 1) -> NodeCertificateIssued:
    return NodeCertificateIssued(enrolment, "1f", key, NOON + timedelta(minutes=minutes, days=1))


def test_the_operator_registers_nodes_without_a_tenant() -> None:
    wanted = RegisterNode("fra-1", "fra-1", None, "eu-west", 50.1, 8.7, "https://fra-1.example.org", ("gpu", "big", "gpu"))
    expected = NodeRegistered("fra-1", "fra-1", None, "eu-west", 50.1, 8.7, "https://fra-1.example.org", ("big", "gpu"))
    operators().when(wanted).then(expected)
    operators(expected).when(wanted).then_rejected("NODE_EXISTS")


def test_a_tenants_node_serves_that_tenant_and_bears_its_mark() -> None:
    studio = RegisterNode("studio~k3x7qa", "studio", (TENANT,))
    tenants(TenantRegistered("Acme")).when(studio).then(NodeRegistered("studio~k3x7qa", "studio", (TENANT,)))
    tenants().when(studio).then_rejected("TENANT_NOT_FOUND")
    given = tenants(TenantRegistered("Acme"))
    given.when(RegisterNode("studio~k3x7qa", "studio")).then_rejected("TENANTS_INVALID", "tenants")
    given.when(RegisterNode("studio~k3x7qa", "studio", (TENANT, OTHER))).then_rejected("TENANTS_INVALID", "tenants")
    given.when(RegisterNode("studio", "studio", (TENANT,))).then_rejected("NODE_ID_INVALID")
    given.when(RegisterNode("fra-1~k3x7qa", "studio", (TENANT,))).then_rejected("NODE_ID_INVALID")
    operators().when(RegisterNode("studio~k3x7qa", "studio")).then_rejected("NODE_ID_INVALID")


@pytest.mark.parametrize(
    ("wanted", "code", "field"),
    [
        (RegisterNode("Fra 1", "Fra 1"), "NAME_INVALID", "name"),
        (RegisterNode("", ""), "NAME_INVALID", "name"),
        (RegisterNode("a~b", "a~b"), "NAME_INVALID", "name"),
        (RegisterNode("n", "n", ()), "TENANTS_INVALID", "tenants"),
        (RegisterNode("n", "n", region="\n"), "REGION_INVALID", "region"),
        (RegisterNode("n", "n", latitude=1.0), "PLACE_INVALID", "latitude"),
        (RegisterNode("n", "n", latitude=91.0, longitude=0.0), "PLACE_INVALID", "latitude"),
        (RegisterNode("n", "n", latitude=float("nan"), longitude=0.0), "PLACE_INVALID", "latitude"),
        (RegisterNode("n", "n", base_url="fra-1.example.org"), "BASE_URL_INVALID", "baseUrl"),
        (RegisterNode("n", "n", base_url="https://u:p@example.org"), "BASE_URL_INVALID", "baseUrl"),
        (RegisterNode("n", "n", base_url="https://example.org/?a"), "BASE_URL_INVALID", "baseUrl"),
        (RegisterNode("n", "n", base_url="https://[::1"), "BASE_URL_INVALID", "baseUrl"),
        (RegisterNode("n", "n", tags=("a b",)), "TAGS_INVALID", "tags"),
        (RegisterNode("n", "n", tags=tuple(f"t{n}" for n in range(33))), "TAGS_INVALID", "tags"),
    ],
)
def test_what_cannot_be_is_refused(wanted: RegisterNode, code: str, field: str) -> None:
    operators().when(wanted).then_rejected(code, field)


def test_what_is_known_of_a_node_is_said_anew_as_a_whole() -> None:
    changed = NodeChanged(None, "us-east", None, None, None, ("gpu",))
    wanted = ChangeNode(region="us-east", tags=("gpu",))
    operators(REGISTERED).when(wanted).then(changed)
    operators(REGISTERED, changed).when(wanted).then()
    operators().when(wanted).then_rejected("NODE_NOT_FOUND", "nodeId")


def test_a_token_enrols_once() -> None:
    operators(REGISTERED, TOKEN).when(enrol()).then(ENROLLED, certificate())
    again = operators(REGISTERED, TOKEN, ENROLLED)
    again.when(enrol(enrolment=SECOND, minutes=2)).then(certificate(minutes=2))  # the answer was lost: the same enrolment
    again.when(enrol(OTHER_KEY)).then_rejected("ENROLMENT_TOKEN_USED")
    operators(REGISTERED, TOKEN).when(enrol(minutes=60)).then_rejected("ENROLMENT_TOKEN_EXPIRED")
    again.when(enrol(minutes=60)).then_rejected("ENROLMENT_TOKEN_EXPIRED")
    operators(REGISTERED).when(enrol()).then_rejected("ENROLMENT_TOKEN_NOT_FOUND")
    operators(REGISTERED, TOKEN).when(enrol(prefix="fwe_other")).then_rejected("ENROLMENT_TOKEN_NOT_FOUND")
    operators(REGISTERED, TOKEN).when(enrol(b"short")).then_rejected("KEY_INVALID")


def test_only_the_newest_token_is_good() -> None:
    newer = EnrolmentTokenIssued("fwe_newer", b"hash", NOON + timedelta(hours=2))
    operators(REGISTERED, TOKEN, newer).when(enrol()).then_rejected("ENROLMENT_TOKEN_NOT_FOUND")
    operators(REGISTERED, TOKEN, newer).when(enrol(prefix="fwe_newer")).then(NodeEnrolled(FIRST, "fwe_newer", KEY), certificate())


def test_a_token_ends_by_itself() -> None:
    wanted = IssueEnrolmentToken("fwe_abcdefgh", b"hash", 3600, NOON)
    operators(REGISTERED).when(wanted).then(TOKEN)
    for seconds in (0, 59, 7 * 86_400 + 1):
        wanted = IssueEnrolmentToken("fwe_abcdefgh", b"hash", seconds, NOON)
        operators(REGISTERED).when(wanted).then_rejected("VALIDITY_INVALID", "validSeconds")


def test_a_certificate_is_renewed_within_its_enrolment() -> None:
    wanted = RenewNodeCertificate(FIRST, OTHER_KEY, "2f", NOON)
    operators(REGISTERED, TOKEN, ENROLLED).when(wanted).then(NodeCertificateIssued(FIRST, "2f", OTHER_KEY, NOON))
    anew = NodeEnrolled(SECOND, "fwe_newer", OTHER_KEY)
    operators(REGISTERED, TOKEN, ENROLLED, anew).when(wanted).then_rejected("NODE_NOT_ENROLLED")
    operators(REGISTERED, TOKEN, ENROLLED, REVOKED).when(wanted).then_rejected("NODE_NOT_ENROLLED")
    operators(REGISTERED).when(wanted).then_rejected("NODE_NOT_ENROLLED")


def test_a_revoked_node_comes_back_by_another_enrolment_only() -> None:
    revoke = RevokeNode("stolen")
    operators(REGISTERED, TOKEN, ENROLLED).when(revoke).then(REVOKED)
    operators(REGISTERED, TOKEN, ENROLLED, REVOKED).when(revoke).then()
    operators(REGISTERED, TOKEN, ENROLLED, REVOKED).when(enrol()).then_rejected("ENROLMENT_TOKEN_NOT_FOUND")
    operators(REGISTERED, REVOKED, TOKEN).when(revoke).then(REVOKED)  # the token that was issued since ends, too
    operators(REGISTERED, TOKEN, ENROLLED, REVOKED, TOKEN).when(enrol(enrolment=SECOND)).then(
        NodeEnrolled(SECOND, "fwe_abcdefgh", KEY), certificate(SECOND)
    )
    operators(REGISTERED).when(RevokeNode(" ")).then_rejected("REASON_INVALID", "reason")


def test_the_mode_is_one_of_three() -> None:
    operators(REGISTERED).when(SetNodeMode(NodeMode.DRAINING)).then(NodeModeSet(NodeMode.DRAINING))
    operators(REGISTERED).when(SetNodeMode(NodeMode.ACTIVE)).then()
    operators(REGISTERED, NodeModeSet(NodeMode.DRAINING)).when(SetNodeMode(NodeMode.ACTIVE)).then(NodeModeSet(NodeMode.ACTIVE))
    operators(REGISTERED).when(SetNodeMode(NodeMode.OTHER)).then_rejected("MODE_INVALID", "mode")


def test_the_operators_boundary_has_no_tenant_and_every_other_one_needs_it() -> None:
    """The worker's own path: the boundary says whose it is, and stays so through every event."""
    assert beginning(TENANT) is EMPTY
    boundary = beginning(OPERATOR_TENANT)
    assert boundary is OPERATORS
    for name in ("fra-1", "fra-2"):
        [event] = decide(boundary, node_uuid(name), RegisterNode(name, name))
        boundary = evolve(boundary, node_uuid(name), event)
        assert boundary.is_operators
        assert boundary.tenant is None
    with pytest.raises(Rejected, match="NODE_EXISTS"):
        decide(boundary, node_uuid("fra-1"), RegisterNode("fra-1", "fra-1"))
    with pytest.raises(Rejected, match="TENANT_NOT_FOUND"):
        decide(beginning(TENANT), node_uuid("fra-1~k"), RegisterNode("fra-1~k", "fra-1", (TENANT,)))
