"""From a mutation to what is read back, to history and to subscribers: suspension, keys, who may watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_public_key

from streams.policy_signing import webhook_secret
from tests.gateway_platform import OPERATOR_TOKEN, SECRET_KEY, Api, Made, Platform, Subscription, new_tenant

ERROR = "__typename ... on Error { code message } ... on ValidationError { field }"
SUSPEND = f"""mutation($id: ID!, $reason: SuspensionReason!, $key: String) {{
  suspendTenant(input: {{tenantId: $id, reason: $reason, clientMutationId: $key}}) {{
    {ERROR} ... on SuspendTenantSuccess {{ tenantId position clientMutationId }} }} }}"""
REINSTATE = f"""mutation($id: ID!, $key: String) {{ reinstateTenant(input: {{tenantId: $id, clientMutationId: $key}}) {{
  {ERROR} ... on ReinstateTenantSuccess {{ tenantId position }} }} }}"""
LIMITS = f"""mutation($id: ID!, $max: Int, $key: String) {{
  setTenantLimits(input: {{tenantId: $id, maxLiveStreams: $max, clientMutationId: $key}}) {{
    {ERROR} ... on SetTenantLimitsSuccess {{ tenantId position }} }} }}"""
SET_POLICY = f"""mutation($input: SetPlaybackPolicyInput!) {{ setPlaybackPolicy(input: $input) {{
  {ERROR} ... on SetPlaybackPolicySuccess {{ position stream {{ playbackPolicy {{
    kind allowedOrigins allowedCountries blockedCountries maxViewers audience webhookUrl openWhenUnavailable }} }} }} }} }}"""
CREATE_KEY = f"""mutation($name: String!, $algorithm: SigningAlgorithm!, $pem: String, $key: String) {{
  createSigningKey(input: {{name: $name, algorithm: $algorithm, publicKeyPem: $pem, clientMutationId: $key}}) {{
    {ERROR} ... on CreateSigningKeySuccess {{ privateKeyPem position signingKey {{ id name algorithm publicKeyPem }} }} }} }}"""
REVOKE_KEY = f"""mutation($id: ID!, $key: String) {{ revokeSigningKey(input: {{keyId: $id, clientMutationId: $key}}) {{
  {ERROR} ... on RevokeSigningKeySuccess {{ keyId position }} }} }}"""
KEYS = "query($at: Position) { signingKeys(after: $at) { id name algorithm publicKeyPem revokedAt } }"
KICK = f"""mutation($id: ID!, $session: String!, $seconds: Int, $key: String) {{
  kickViewer(input: {{streamId: $id, sessionId: $session, blockSeconds: $seconds, clientMutationId: $key}}) {{
    {ERROR} ... on KickViewerSuccess {{ streamId sessionId position }} }} }}"""
HISTORY = """query($id: ID, $at: Position) { history(id: $id, afterPosition: $at, first: 20) { nodes {
  type actor { kind } changes { field before after } } } }"""
TENANT = "{ tenant { id name standing maxLiveStreams playbackWebhookSecret } }"


@pytest.fixture
async def clean() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as clean:
        yield clean


@pytest.fixture
async def acme(gateway_platform: Platform, clean: AsyncExitStack) -> Made:
    return await new_tenant(gateway_platform, clean)


@pytest.fixture
async def operator(gateway_platform: Platform, clean: AsyncExitStack) -> Api:
    api = Api(gateway_platform, OPERATOR_TOKEN)
    clean.push_async_callback(api.close)
    return api


def switch(name: str) -> str:
    """disableStream or enableStream."""
    success = name[0].upper() + name[1:] + "Success"
    return f"""mutation($id: ID!, $key: String) {{ {name}(input: {{streamId: $id, clientMutationId: $key}}) {{
      {ERROR} ... on {success} {{ position stream {{ id disabled }} }} }} }}"""


async def tenant_of(api: Api, position: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.data(TENANT, {"X-FW-After": position}))["tenant"]
    return found


async def history(api: Api, of: str, position: str) -> list[dict[str, Any]]:
    return list((await api.data(HISTORY, id=of, at=position))["history"]["nodes"])


async def test_the_operator_suspends_limits_and_reinstates_a_tenant(acme: Made, operator: Api) -> None:
    suspended = await operator.made(SUSPEND, id=acme.tenant_id, reason="PAYMENT_REQUIRED")
    assert suspended["__typename"] == "SuspendTenantSuccess"
    assert suspended["tenantId"] == acme.tenant_id
    assert (await tenant_of(acme.api, suspended["position"]))["standing"] == "PAYMENT_REQUIRED"
    limited = await operator.made(LIMITS, id=acme.tenant_id, max=3)
    assert (await tenant_of(acme.api, limited["position"]))["maxLiveStreams"] == 3
    unlimited = await operator.made(LIMITS, id=acme.tenant_id, max=None)
    reinstated = await operator.made(REINSTATE, id=acme.tenant_id)
    found = await tenant_of(acme.api, reinstated["position"])
    assert (found["standing"], found["maxLiveStreams"]) == ("ACTIVE", None)
    told = await history(acme.api, acme.tenant_id, unlimited["position"])
    assert [(h["type"], h["actor"]["kind"]) for h in told[:4]] == [
        (name, "OPERATOR") for name in ("TenantReinstated", "TenantLimitsSet", "TenantLimitsSet", "TenantSuspended")
    ]
    assert told[3]["changes"] == [{"field": "standing", "before": "ACTIVE", "after": "PAYMENT_REQUIRED"}]
    assert told[2]["changes"] == [{"field": "maxLiveStreams", "before": None, "after": "3"}]
    assert told[1]["changes"] == [{"field": "maxLiveStreams", "before": "3", "after": None}]


async def test_only_the_operator_may_and_only_tenants_that_exist(acme: Made, operator: Api, clean: AsyncExitStack) -> None:
    for mutation in (SUSPEND, REINSTATE, LIMITS):
        variables = {"id": acme.tenant_id, **({"reason": "SUSPENDED"} if mutation is SUSPEND else {})}
        answer = await acme.api.made(mutation, **variables)
        assert (answer["__typename"], answer["code"]) == ("AuthError", "FORBIDDEN")
        nobody = Api(acme.api.platform, None)
        clean.push_async_callback(nobody.close)
        assert (await nobody.made(mutation, **variables))["code"] == "UNAUTHENTICATED"
        for of in (str(uuid4()), "nonsense"):
            answer = await operator.made(mutation, **{**variables, "id": of})
            assert (answer["__typename"], answer["code"]) == ("NotFoundError", "TENANT_NOT_FOUND")
    wrong = await operator.made(LIMITS, id=acme.tenant_id, max=-1)
    assert (wrong["__typename"], wrong["code"], wrong["field"]) == ("ValidationError", "LIMIT_INVALID", "maxLiveStreams")


async def test_a_stream_is_disabled_watched_by_few_and_was_otherwise_before(
    acme: Made, gateway_platform: Platform, clean: AsyncExitStack
) -> None:
    stream = await acme.stream()
    subscription = await Subscription.open(
        gateway_platform,
        acme.token,
        """subscription($id: ID!) { streamEvents(streamId: $id) { __typename
             ... on PlaybackPolicySet { playback { kind audience } } ... on ViewerKicked { sessionId until } } }""",
        clean,
        id=stream["id"],
    )
    assert (await subscription.event())["__typename"] == "StreamSnapshot"
    disabled = await acme.api.made(switch("disableStream"), id=stream["id"])
    assert disabled["stream"] == {"id": stream["id"], "disabled": True}
    wanted = {
        "kind": "JWT",
        "allowedOrigins": ["https://Example.org/"],
        "allowedCountries": ["nl"],
        "maxViewers": 5,
        "audience": "tv",
    }
    said = await acme.api.made(SET_POLICY, input={"streamId": stream["id"], **wanted})
    assert said["stream"]["playbackPolicy"] == {
        "kind": "JWT",
        "allowedOrigins": ["https://example.org"],
        "allowedCountries": ["NL"],
        "blockedCountries": [],
        "maxViewers": 5,
        "audience": "tv",
        "webhookUrl": None,
        "openWhenUnavailable": False,
    }
    before = datetime.now(UTC)
    enabled = await acme.api.made(switch("enableStream"), id=stream["id"])
    assert enabled["stream"]["disabled"] is False
    kicked = await acme.api.made(KICK, id=stream["id"], session="c036d022", seconds=600)
    assert (kicked["__typename"], kicked["sessionId"]) == ("KickViewerSuccess", "c036d022")
    events = [await subscription.event() for _ in range(4)]
    assert [e["__typename"] for e in events] == ["StreamDisabled", "PlaybackPolicySet", "StreamEnabled", "ViewerKicked"]
    assert events[1]["playback"] == {"kind": "JWT", "audience": "tv"}
    assert datetime.fromisoformat(events[3]["until"]) - before > timedelta(seconds=500)
    told = await history(acme.api, stream["id"], kicked["position"])
    assert {"field": "disabled", "before": "true", "after": "false"} in told[1]["changes"]
    assert told[0]["type"] == "ViewerKicked"
    past = await acme.api.data(
        "query($id: ID!, $at: DateTime) { stream(id: $id, asOf: $at) { disabled playbackPolicy { kind } } }",
        id=stream["id"],
        at=before.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )
    assert past["stream"] == {"disabled": True, "playbackPolicy": {"kind": "JWT"}}


async def test_what_cannot_be_is_refused_in_words(acme: Made) -> None:
    stream = await acme.stream()

    async def refused(**wanted: object) -> tuple[str, str, str]:
        answer = await acme.api.made(SET_POLICY, input={"streamId": stream["id"], **wanted})
        return answer["__typename"], answer["code"], answer["field"]

    assert await refused(kind="WEBHOOK") == ("ValidationError", "WEBHOOK_URL_REQUIRED", "webhookUrl")
    url = "http://example.org/hook"
    assert await refused(kind="WEBHOOK", webhookUrl=url) == ("ValidationError", "WEBHOOK_URL_INVALID", "webhookUrl")
    assert await refused(kind="PUBLIC", blockedCountries=["Spain"]) == ("ValidationError", "COUNTRY_INVALID", "blockedCountries")
    gone = await acme.api.made(switch("disableStream"), id=str(uuid4()))
    assert (gone["__typename"], gone["code"]) == ("NotFoundError", "STREAM_NOT_FOUND")
    none = await acme.api.made(KICK, id=stream["id"], session="x", seconds=0)
    assert (none["code"], none["field"]) == ("BLOCK_INVALID", "blockSeconds")


@pytest.mark.parametrize(("algorithm", "name"), [("ES256", "ES256"), ("EDDSA", "EdDSA")])
async def test_the_platform_makes_a_key_pair_and_keeps_the_public_half(acme: Made, algorithm: str, name: str) -> None:

    async def create() -> dict[str, Any]:
        """With the same key every time."""
        while True:
            answer = await acme.api.data(CREATE_KEY, name="web player", algorithm=algorithm, key="my key")
            made: dict[str, Any] = answer["createSigningKey"]
            if made["__typename"] != "PendingResult":
                return made

    made, again = await create(), await create()
    assert made["privateKeyPem"] == again["privateKeyPem"]  # it follows from the client's key
    assert made["signingKey"] == again["signingKey"]
    token = jwt.encode({"sub": "x"}, made["privateKeyPem"], name, headers={"kid": made["signingKey"]["id"]})
    [found] = (await acme.api.data(KEYS, at=made["position"]))["signingKeys"]
    assert found == {**made["signingKey"], "revokedAt": None}
    assert jwt.decode(token, found["publicKeyPem"], [name]) == {"sub": "x"}
    told = await history(acme.api, acme.tenant_id, made["position"])
    assert "PRIVATE" not in str(told)
    assert told[0]["changes"] == [{"field": f"signingKey {found['id']}", "before": None, "after": "web player"}]
    revoked = await acme.api.made(REVOKE_KEY, id=found["id"])
    [gone] = (await acme.api.data(KEYS, at=revoked["position"]))["signingKeys"]
    assert gone["revokedAt"] is not None
    assert (await acme.api.made(REVOKE_KEY, id=found["id"]))["code"] == "SIGNING_KEY_NOT_FOUND"


async def test_a_tenant_brings_a_public_key_of_its_own_and_no_private_one(acme: Made) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    made = await acme.api.made(CREATE_KEY, name="mine", algorithm="ES256", pem=public)
    assert made["privateKeyPem"] is None
    assert load_pem_public_key(made["signingKey"]["publicKeyPem"].encode()) == private.public_key()
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for algorithm, pem in (("EDDSA", public), ("ES256", secret), ("ES256", "nonsense"), ("ES256", "x" * 5000)):
        answer = await acme.api.made(CREATE_KEY, name="mine", algorithm=algorithm, pem=pem)
        assert (answer["__typename"], answer["code"], answer["field"]) == (
            "ValidationError",
            "PUBLIC_KEY_INVALID",
            "publicKeyPem",
        )


async def test_keys_and_secrets_are_a_tenants_own(acme: Made, gateway_platform: Platform, clean: AsyncExitStack) -> None:
    other = await new_tenant(gateway_platform, clean, "Other")
    made = await acme.api.made(CREATE_KEY, name="web", algorithm="EDDSA")
    assert (await other.api.data(KEYS, at=made["position"]))["signingKeys"] == []
    assert (await other.api.made(REVOKE_KEY, id=made["signingKey"]["id"]))["code"] == "SIGNING_KEY_NOT_FOUND"
    stream = await acme.stream()
    assert (await other.api.made(KICK, id=stream["id"], session="x", seconds=1))["code"] == "STREAM_NOT_FOUND"
    secrets = [(await made.api.data(TENANT))["tenant"]["playbackWebhookSecret"] for made in (acme, other)]
    assert secrets[0] != secrets[1]
    assert secrets[0].encode() == webhook_secret(bytes.fromhex(SECRET_KEY), bytes.fromhex(acme.tenant_id.replace("-", "")))


PLAYBACK = """query($id: ID!, $token: String, $origin: String, $country: String, $address: String, $session: String,
    $viewers: Int, $at: DateTime, $after: Position) {
  playbackDecision(streamId: $id, token: $token, origin: $origin, country: $country, address: $address, sessionId: $session,
    viewers: $viewers, at: $at, after: $after) { allowed reason policyVersion viewer } }"""
INGEST = """query($key: String!, $at: DateTime, $after: Position) { ingestDecision(streamKey: $key, at: $at, after: $after) {
  allowed reason message streamId policyVersion } }"""
ROTATE = f"""mutation($id: ID!, $grace: Int, $key: String) {{
  rotateStreamKey(input: {{streamId: $id, graceSeconds: $grace, clientMutationId: $key}}) {{
    {ERROR} ... on RotateStreamKeySuccess {{ streamKey position }} }} }}"""


async def test_a_dry_run_says_what_a_viewer_would_be_told_and_why(acme: Made) -> None:
    stream = await acme.stream()

    async def decided(**asked: object) -> tuple[bool | None, str]:
        found = (await acme.api.data(PLAYBACK, id=stream["id"], **asked))["playbackDecision"]
        return found["allowed"], found["reason"]

    assert await decided(after=stream["position"]) == (True, "PUBLIC")
    key = await acme.api.made(CREATE_KEY, name="web", algorithm="ES256")
    wanted = {"kind": "JWT", "allowedOrigins": ["example.org"], "blockedCountries": ["RU"], "maxViewers": 1, "audience": "tv"}
    said = await acme.api.made(SET_POLICY, input={"streamId": stream["id"], **wanted})
    now, position = int(datetime.now(UTC).timestamp()), said["position"]

    def token(**claims: object) -> str:
        whole = {"sub": stream["playbackId"], "viewer": "alice", "aud": "tv", "exp": now + 600, **claims}
        return jwt.encode(whole, key["privateKeyPem"], "ES256", headers={"kid": key["signingKey"]["id"]})

    page, good = "https://example.org", token()
    found = (await acme.api.data(PLAYBACK, id=stream["id"], token=good, origin=page, after=position))["playbackDecision"]
    assert found == {"allowed": True, "reason": "JWT", "policyVersion": 2, "viewer": "alice"}
    assert await decided(origin=page) == (False, "TOKEN_MISSING")
    assert await decided(token=token(exp=now - 600), origin=page) == (False, "TOKEN_EXPIRED")
    assert await decided(token=token(aud="radio"), origin=page) == (False, "TOKEN_MISMATCH")
    assert await decided(token=token(ip="192.0.2.1"), origin=page, address="192.0.2.2") == (False, "TOKEN_MISMATCH")
    assert await decided(token=good, origin="https://evil.org") == (False, "ORIGIN_NOT_ALLOWED")
    assert await decided(token=good, origin=page, country="ru") == (False, "COUNTRY_NOT_ALLOWED")
    assert await decided(token=good, origin=page, viewers=1) == (False, "VIEWER_LIMIT_REACHED")
    between = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    revoked = await acme.api.made(REVOKE_KEY, id=key["signingKey"]["id"])
    assert await decided(token=good, origin=page, after=revoked["position"]) == (False, "TOKEN_INVALID")
    assert await decided(token=good, origin=page, at=between) == (True, "JWT")  # as it was then
    kicked = await acme.api.made(KICK, id=stream["id"], session="c036d022", seconds=600)
    assert await decided(session="c036d022", after=kicked["position"]) == (False, "KICKED")
    hook = await acme.api.made(
        SET_POLICY, input={"streamId": stream["id"], "kind": "WEBHOOK", "webhookUrl": "https://example.org/hook"}
    )
    assert await decided(after=hook["position"]) == (None, "ASK_WEBHOOK")


async def test_a_dry_run_says_what_a_publisher_would_be_told_and_why(acme: Made, operator: Api) -> None:
    stream = await acme.stream()

    async def decided(key: str, after: str | None = None) -> tuple[bool, str, str | None]:
        found = (await acme.api.data(INGEST, key=key, after=after))["ingestDecision"]
        return found["allowed"], found["reason"], found["streamId"]

    own, lobby = stream["streamKey"], stream["id"]
    assert await decided(own, stream["position"]) == (True, "KEY_ACCEPTED", lobby)
    assert await decided("sk_abcdefgh_" + "a" * 32) == (False, "UNKNOWN_KEY", None)
    assert await decided("anything") == (False, "UNKNOWN_KEY", None)
    rotated = await acme.api.made(ROTATE, id=lobby, grace=600)
    assert await decided(own, rotated["position"]) == (True, "KEY_ACCEPTED", lobby)
    again = await acme.api.made(ROTATE, id=lobby, grace=0)
    assert await decided(rotated["streamKey"], again["position"]) == (False, "KEY_EXPIRED", lobby)
    disabled = await acme.api.made(switch("disableStream"), id=lobby)
    assert await decided(again["streamKey"], disabled["position"]) == (False, "STREAM_DISABLED", lobby)
    enabled = await acme.api.made(switch("enableStream"), id=lobby)
    assert await decided(again["streamKey"], enabled["position"]) == (True, "KEY_ACCEPTED", lobby)
    suspended = await operator.made(SUSPEND, id=acme.tenant_id, reason="PAYMENT_REQUIRED")
    assert await decided(again["streamKey"], suspended["position"]) == (False, "PAYMENT_REQUIRED", lobby)


async def test_a_dry_run_is_about_streams_of_ones_own(acme: Made, gateway_platform: Platform, clean: AsyncExitStack) -> None:
    stream = await acme.stream()
    other = await new_tenant(gateway_platform, clean, "Other")
    for of in (stream["id"], str(uuid4()), "nonsense"):
        answer = await other.api(PLAYBACK, {}, id=of)
        assert answer["errors"][0]["extensions"]["code"] == "STREAM_NOT_FOUND"
    found = (await other.api.data(INGEST, key=stream["streamKey"]))["ingestDecision"]
    assert (found["reason"], found["streamId"]) == ("UNKNOWN_KEY", None)
