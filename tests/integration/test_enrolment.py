"""A node from its token to its certificate, over real HTTP and TLS: who gets in, who does not, who is cut off, and how fast."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import msgspec
import pytest

from edge_agent import identity
from edge_agent.enrolment import enrol, renew
from edge_agent.identity import Identity
from infra.embedded.stack import Stack
from streams.codec import decode_policy, encode
from streams.errors import Rejected
from streams.generated import NodeMode, NodePolicy, NodeStarted
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.ingress.client import Outgoing, Publisher
from streams.ingress.credentials import issue
from streams.ingress.line import Line
from streams.ingress.policy_client import watch_policy
from streams.ingress.transport import NodeCertificate
from streams.pki.messages import parse_token
from streams.policy_signing import Verifier
from tests.enrolment import (
    CERTIFICATE_SECONDS,
    CHANGE,
    ISSUE,
    REVOKE,
    SET_MODE,
    Enrolling,
    another_authority,
    certificate,
    enrolling,
    in_the_middle,
    node,
    token_for,
    until,
)
from tests.gateway_platform import SECRET_KEY, Api, new_tenant
from tests.ingress import buffer_changed, fact, meta


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolling]:
    with enrolling(stack, tmp_path_factory.mktemp("enrolling")) as started:
        yield started


@pytest.fixture
async def operator(platform: Enrolling) -> AsyncIterator[Api]:
    api = platform.operator()
    yield api
    await api.close()


async def enrolled(platform: Enrolling, api: Api, name: str, state_dir: Path) -> Identity:
    _, token = await token_for(api, name)
    return await asyncio.to_thread(enrol, parse_token(token), platform.url, state_dir)


def of_itself(node_id: str, tenant_id: UUID = OPERATOR_TENANT) -> Outgoing:
    """What a node says of itself."""
    return Outgoing(encode(NodeStarted(node_id, "3.10"), meta(tenant_id, node_uuid(node_id), node_id=node_id)))


async def said(address: str, shown: NodeCertificate | str, *items: Outgoing) -> list[str]:
    """What the ingress refused of these items, by code and index."""
    async with Publisher(address, lambda: shown) as publisher, asyncio.timeout(180):
        return [f"{r.index} {r.code}" for r in await (await publisher.publish(items))]


async def problem_of(address: str, shown: NodeCertificate | str) -> str:
    """Why a node is not let in."""
    async with Publisher(address, lambda: shown) as publisher, asyncio.timeout(180):
        receipt = await publisher.publish([of_itself("edge-1")])
        while (problem := publisher.line.problem) in (None, "not connected yet"):
            await asyncio.sleep(0.01)
        assert not receipt.done()
        assert not publisher.line.lost_total, "who was not let in was never connected"
        return problem or ""


async def test_a_node_enrols_and_speaks(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    node_id, token = await token_for(operator, "fra-1")
    found = await asyncio.to_thread(enrol, parse_token(token), platform.url, tmp_path)
    assert (found.node_id, found.tenant_id, found.ingress) == (node_id, OPERATOR_TENANT, platform.ingress_tls)
    assert found.lifetime_seconds == CERTIFICATE_SECONDS
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert files == {"identity.json": 0o600}
    assert identity.load(tmp_path) == found
    stream, tenant = uuid4(), uuid4()
    items = [
        of_itself("fra-1"),
        Outgoing(fact(tenant, stream, 1, "fra-1")),
        of_itself("fra-2"),  # speaks as another node
        Outgoing(fact(tenant, stream, 2, "fra-2")),
        Outgoing(encode(buffer_changed(3, "fra-2"), meta(tenant, stream, node_id="fra-1"))),  # reports what another saw
        Outgoing(encode(NodeStarted("fra-1", "3.10"), meta(OPERATOR_TENANT, node_uuid("fra-2"), node_id="fra-1"))),
    ]
    refused = await said(found.ingress, found.shown, *items)
    assert refused == ["2 FOREIGN_TENANT", "3 FOREIGN_TENANT", "4 FOREIGN_TENANT", "5 FOREIGN_TENANT"]
    position = (await operator.made(SET_MODE, node=node_id, mode="DRAINING"))["position"]
    row = await node(operator, node_id, position)
    assert (row["enrolment"], row["mode"], row["tags"], row["tenants"]) == ("ENROLLED", "DRAINING", ["gpu"], None)
    assert row["certificateSerial"]
    listed = await operator.data("{ nodes(first: 100) { totalCount nodes { id } pageInfo { hasNextPage } } }")
    assert node_id in [n["id"] for n in listed["nodes"]["nodes"]]


async def test_a_token_is_good_for_one_key(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    _, text = await token_for(operator, "fra-3")
    token = parse_token(text)
    lost = in_the_middle(platform.url, answers=lambda _, __: (b"lost", ""))  # the platform decides, and its answer is lost
    with lost as (between, _), pytest.raises(ValueError, match="cannot be read"):
        await asyncio.to_thread(enrol, token, between, tmp_path / "a")
    found = await asyncio.to_thread(enrol, token, platform.url, tmp_path / "a")  # the same key: the same answer
    assert await said(found.ingress, found.shown, of_itself("fra-3")) == []
    with pytest.raises(Rejected) as refused:
        await asyncio.to_thread(enrol, token, platform.url, tmp_path / "b")
    assert refused.value.code == "ENROLMENT_TOKEN_USED"
    assert not (tmp_path / "b" / "identity.json").exists()
    unknown = parse_token(text.replace(text[4:12], "abcdefgh"))
    with pytest.raises(Rejected) as refused:
        await asyncio.to_thread(enrol, unknown, platform.url, tmp_path / "c")
    assert refused.value.code == "ENROLMENT_TOKEN_NOT_FOUND"
    assert "issueEnrolmentToken" in refused.value.message


async def test_whoever_stands_between_gains_nothing(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    _, text = await token_for(operator, "fra-4")
    token = parse_token(text)
    # They read everything: the token is not there.
    theirs = identity.asked(tmp_path / "theirs")

    def with_their_key(body: bytes) -> bytes:
        return msgspec.json.encode({**msgspec.json.decode(body), "csr": theirs.csr})

    with in_the_middle(platform.url, asks=with_their_key) as (between, seen), pytest.raises(Rejected) as refused:
        await asyncio.to_thread(enrol, token, between, tmp_path / "a")
    assert refused.value.code == "ENROLMENT_TOKEN_NOT_FOUND"
    assert token.secret.encode() not in b"".join(seen)
    assert token.prefix.encode() in b"".join(seen)

    # They send the node elsewhere, or pass for the platform with an authority of theirs.
    other = another_authority()

    def elsewhere(body: bytes, signature: str) -> tuple[bytes, str]:
        return msgspec.json.encode({**msgspec.json.decode(body), "ingress": "192.0.2.1:18016"}), signature

    def with_their_authority(body: bytes, _: str) -> tuple[bytes, str]:
        said = msgspec.json.encode({**msgspec.json.decode(body), "authority": other.certificate_pem.decode()})
        return said, other.sign(said).hex()

    for change, why in ((elsewhere, "not given by its authority"), (with_their_authority, "somebody stands between")):
        with in_the_middle(platform.url, answers=change) as (between, _), pytest.raises(ValueError, match=why):
            await asyncio.to_thread(enrol, token, between, tmp_path / "a")
    assert not (tmp_path / "a" / "identity.json").exists()
    assert (await asyncio.to_thread(enrol, token, platform.url, tmp_path / "a")).node_id == "fra-4"


async def test_only_certificates_of_the_authority_get_in(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    found = await enrolled(platform, operator, "fra-5", tmp_path)
    ours = platform.authority
    address = platform.ingress_tls
    assert await said(address, found.shown, of_itself("fra-5")) == []
    for shown in (
        certificate(another_authority(), "fra-5", trusts=ours),  # another authority
        certificate(ours, "fra-5", seconds=-5),  # it ended
        issue(bytes.fromhex(SECRET_KEY), "fra-5", None),  # no certificate at all
    ):
        assert (await problem_of(address, shown)).startswith("UNAVAILABLE")  # no handshake
    assert "enrolled anew" in await problem_of(address, certificate(ours, "fra-5"))  # signed, and of no enrolment
    assert "nobody registered" in await problem_of(address, certificate(ours, "nobody"))
    # A node that was enrolled does not get in without its certificate any more.
    credential = issue(bytes.fromhex(SECRET_KEY), "fra-5", None)
    assert "must show its certificate" in await problem_of(platform.ingress, credential)


async def test_a_node_does_not_follow_another_platform(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    """Whoever answers at the ingress' address must be it: an ingress of another authority, or a node, is not."""
    found = await enrolled(platform, operator, "fra-6", tmp_path)
    other = another_authority()
    for shown, key in ((found.shown.certificate, found.shown.key), other.ingress_certificate(datetime.now(UTC))[::-1]):
        server = grpc.aio.server()
        credentials = grpc.ssl_server_credentials([(key, shown)], platform.authority.certificate_pem, True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            assert (await problem_of(f"127.0.0.1:{port}", found.shown)).startswith("UNAVAILABLE")
        finally:
            await server.stop(0)


async def test_a_tenants_node_speaks_for_that_tenant_alone(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    async with AsyncExitStack() as clean:
        a, b = await new_tenant(platform.platform, clean, "A"), await new_tenant(platform.platform, clean, "B")
        of_a = await enrolled(platform, a.api, "studio", tmp_path / "a")
        of_b = await enrolled(platform, b.api, "studio", tmp_path / "b")
        assert of_a.node_id.startswith("studio~")
        assert of_a.node_id != of_b.node_id
        tenant, other = UUID(a.tenant_id), UUID(b.tenant_id)
        items = [
            Outgoing(fact(tenant, uuid4(), 1, of_a.node_id)),
            of_itself(of_a.node_id, tenant),
            Outgoing(fact(other, uuid4(), 1, of_a.node_id)),
            of_itself(of_b.node_id, other),  # node A speaks as node B
            of_itself(of_a.node_id, OPERATOR_TENANT),
        ]
        refused = await said(of_a.ingress, of_a.shown, *items)
        assert refused == ["2 FOREIGN_TENANT", "3 FOREIGN_TENANT", "4 FOREIGN_TENANT"]
        # Nodes of another are as if they were not there.
        for answer in (
            await b.api.made(ISSUE, node=of_a.node_id, seconds=60),
            await b.api.made(REVOKE, node=of_a.node_id),
        ):
            assert (answer["__typename"], answer["code"]) == ("NotFoundError", "NODE_NOT_FOUND")
        found = await b.api.data("query ($id: ID!) { node(id: $id) { id } nodes { totalCount nodes { id } } }", id=of_a.node_id)
        assert found == {"node": None, "nodes": {"totalCount": 1, "nodes": [{"id": of_b.node_id}]}}


async def test_a_revoked_node_is_cut_off_within_a_second(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    found = await enrolled(platform, operator, "fra-7", tmp_path)
    following = Line()
    news = watch_policy(found.ingress, lambda: found.shown, following)
    async with Publisher(found.ingress, lambda: found.shown) as publisher:
        assert await (await publisher.publish([of_itself("fra-7")])) == ()
        await anext(news)
        watching = asyncio.ensure_future(anext(news))
        await until(lambda: publisher.line.is_up and following.is_up)
        answer = await operator.made(REVOKE, node="fra-7")
        decided_at = time.monotonic()
        await until(lambda: not publisher.line.is_up and not following.is_up)
        assert time.monotonic() - decided_at < 1
        watching.cancel()
        await until(lambda: "revoked" in str(publisher.line.problem))
    assert answer["__typename"] == "RevokeNodeSuccess"
    assert "this node was revoked" in await problem_of(found.ingress, found.shown)
    assert "this node was revoked" in await problem_of(platform.ingress, issue(bytes.fromhex(SECRET_KEY), "fra-7", None))
    with pytest.raises(Rejected) as refused:
        await asyncio.to_thread(renew, found, tmp_path)
    assert refused.value.code == "NODE_NOT_ENROLLED"
    row = await node(operator, "fra-7", answer["position"])
    assert row["enrolment"] == "REVOKED"
    assert row["revokedAt"]
    # It comes back by being enrolled anew; what it had before stays dead.
    again = await operator.made(ISSUE, node="fra-7", seconds=60)
    anew = await asyncio.to_thread(enrol, parse_token(again["token"]), platform.url, tmp_path)
    assert await said(anew.ingress, anew.shown, of_itself("fra-7")) == []
    assert "enrolled anew" in await problem_of(found.ingress, found.shown)


async def test_a_node_learns_what_it_is_for(platform: Enrolling, operator: Api, tmp_path: Path) -> None:
    """Its own record of the policy, signed with the key that its enrolment told it; other nodes' it does not get."""
    found = await enrolled(platform, operator, "fra-10", tmp_path)
    await enrolled(platform, operator, "fra-11", tmp_path / "other")
    verifier, told = Verifier(bytes.fromhex(found.policy_key)), list[NodePolicy]()
    async with asyncio.timeout(180), aclosing(watch_policy(found.ingress, lambda: found.shown, Line())) as news:
        await operator.made(SET_MODE, node="fra-10", mode="MAINTENANCE")
        async for some in news:
            for record in some.records:
                assert verifier.is_good(record.value, record.signature)
                policy = decode_policy(record.value)
                told += [policy] if isinstance(policy, NodePolicy) else []
            if told and told[-1].mode is NodeMode.MAINTENANCE:
                break
    assert {policy.node_id for policy in told} == {"fra-10"}
    assert told[-1].tags == ("gpu",)
    assert told[-1].mode_request_id is not None


async def test_a_node_that_serves_others_from_now_on_is_asked_to_connect_again(
    platform: Enrolling, operator: Api, tmp_path: Path
) -> None:
    found = await enrolled(platform, operator, "fra-8", tmp_path)
    tenant, other = uuid4(), uuid4()
    async with Publisher(found.ingress, lambda: found.shown) as publisher:
        assert await (await publisher.publish([Outgoing(fact(other, uuid4(), 1, "fra-8"))])) == ()
        await operator.made(CHANGE, node="fra-8", tenants=[str(tenant)])
        await until(lambda: publisher.line.lost_total == 1 and publisher.line.is_up)
        of_tenants = [Outgoing(fact(t, uuid4(), 1, "fra-8")) for t in (other, tenant)]
        items = [*of_tenants, of_itself("fra-8")]
        assert [r.index for r in await (await publisher.publish(items))] == [0]


async def test_a_connection_ends_with_its_certificate_and_an_old_one_renews(
    platform: Enrolling, operator: Api, tmp_path: Path
) -> None:
    found = await enrolled(platform, operator, "fra-9", tmp_path)
    async with Publisher(found.ingress, lambda: found.shown) as publisher:
        assert await (await publisher.publish([of_itself("fra-9")])) == ()
        await until(lambda: publisher.line.lost_total == 1, CERTIFICATE_SECONDS + 60)
        # The machine was off for a while: its certificate has ended, and renews all the same.
    problem = await problem_of(found.ingress, found.shown)  # no handshake; in the very second of its end, no more than that
    assert problem.startswith("UNAVAILABLE") or "has ended" in problem
    renewed = await asyncio.to_thread(renew, found, tmp_path)
    assert renewed.certificate != found.certificate
    assert renewed.key != found.key
    assert await said(renewed.ingress, renewed.shown, of_itself("fra-9")) == []
    assert identity.load(tmp_path) == renewed


async def test_what_is_no_request_of_a_node_is_said_to_be_none(platform: Enrolling, operator: Api) -> None:
    http = operator.http
    for path in ("/enrol", "/enrol/renew"):
        for body, status in ((b"", 400), (b"{}", 400), (b"\xff", 400), (b"x" * 20_000, 413)):
            response = await http.post(f"{platform.url}{path}", content=body)
            assert (response.status_code, response.json()["message"][-1]) == (status, "."), response.text
        assert (await http.get(f"{platform.url}{path}")).status_code == 405
