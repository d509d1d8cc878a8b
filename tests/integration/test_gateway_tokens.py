"""API tokens of a tenant, from the mutation to the credential check of the next request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.auth import KNOWN_SECONDS
from tests.gateway_platform import OPERATOR_TOKEN, Api, Json, Made, Platform, Subscription, new_tenant

CREATE = """mutation($name: String!, $key: String) { createApiToken(input: {name: $name, clientMutationId: $key}) {
    __typename ... on CreateApiTokenSuccess { apiToken tokenPrefix position clientMutationId }
    ... on Error { code message } ... on ValidationError { field } } }"""
REVOKE = """mutation($prefix: String!, $key: String) { revokeApiToken(input: {tokenPrefix: $prefix, clientMutationId: $key}) {
    __typename ... on RevokeApiTokenSuccess { tokenPrefix position } ... on Error { code message } } }"""
WHO = "{ viewer { kind tenant { id } } }"


@pytest.fixture
def platform(gateway_platform: Platform) -> Platform:
    return gateway_platform


@pytest.fixture
async def clean() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def me(platform: Platform, clean: AsyncExitStack) -> Made:
    return await new_tenant(platform, clean)


async def client(platform: Platform, clean: AsyncExitStack, token: str) -> Api:
    api = Api(platform, token)
    clean.push_async_callback(api.close)
    return api


async def created(api: Api, name: str = "encoder", key: str | None = None) -> Json:
    found: Json = (await api.data(CREATE, name=name, key=key))["createApiToken"]
    return found


async def revoked(api: Api, prefix: str, key: str | None = None) -> Json:
    found: Json = (await api.data(REVOKE, prefix=prefix, key=key))["revokeApiToken"]
    return found


async def test_a_second_token_works_at_once(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    made = await created(me.api)
    assert made["__typename"] == "CreateApiTokenSuccess"
    assert made["apiToken"].startswith(made["tokenPrefix"] + "_")
    second = await client(platform, clean, made["apiToken"])
    mine = {"viewer": {"kind": "TENANT", "tenant": {"id": me.tenant_id}}}
    assert await second.data(WHO) == mine
    assert await me.api.data(WHO) == mine


async def test_a_token_is_made_once_per_key(me: Made) -> None:
    one, two = [await created(me.api, key="same") for _ in range(2)]
    assert one["apiToken"] == two["apiToken"]
    other = await created(me.api, name="another wish", key="same")
    assert (other["__typename"], other["code"]) == ("ConflictError", "IDEMPOTENCY_KEY_REUSED")


async def test_tokens_are_made_by_tenants_with_a_name(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    refused = await created(me.api, name=" ")
    assert (refused["__typename"], refused["code"], refused["field"]) == ("ValidationError", "NAME_INVALID", "name")
    operator = await client(platform, clean, OPERATOR_TOKEN)
    assert (await created(operator))["code"] == "FORBIDDEN"
    stranger = await client(platform, clean, "fwt_aaaaaaaa_" + "a" * 32)
    assert (await created(stranger))["code"] == "UNAUTHENTICATED"


async def test_a_revoked_token_is_refused(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    made = await created(me.api)
    second = await client(platform, clean, made["apiToken"])
    assert (await second.data(WHO))["viewer"]["kind"] == "TENANT", "the gateway knows it now"
    done = await revoked(me.api, made["tokenPrefix"], key="once")
    assert (done["__typename"], done["tokenPrefix"]) == ("RevokeApiTokenSuccess", made["tokenPrefix"])
    assert (await revoked(me.api, made["tokenPrefix"], key="once"))["__typename"] == "RevokeApiTokenSuccess"
    assert (await revoked(me.api, made["tokenPrefix"]))["code"] == "TOKEN_NOT_FOUND"
    give_up_at = time.monotonic() + KNOWN_SECONDS + 60  # a busy machine is late with the decision
    while (await second.data(WHO))["viewer"]["kind"] == "TENANT":
        assert time.monotonic() < give_up_at, "remembered for longer than it may be"
        await asyncio.sleep(0.2)  # asking is all that a client can do
    assert (await created(second))["code"] == "UNAUTHENTICATED"
    assert (await me.api.data(WHO))["viewer"]["kind"] == "TENANT", "the others go on"


async def test_a_socket_ends_with_its_token(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    made = await created(me.api)
    stream = await me.stream()
    follow = "subscription($id: ID!) { streamEvents(streamId: $id) { __typename } }"
    gone = await Subscription.open(platform, made["apiToken"], follow, clean, id=stream["id"])
    stays = await Subscription.open(platform, me.token, follow, clean, id=stream["id"])
    for subscription in (gone, stays):
        assert (await subscription.event())["__typename"] == "StreamSnapshot"
    await revoked(me.api, made["tokenPrefix"])
    with pytest.raises(ConnectionClosed) as closed:
        await gone.message(2 * KNOWN_SECONDS + 60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403
    await stays.socket.send('{"type": "ping"}')
    assert (await stays.message())["type"] == "pong", "the others go on"


async def test_which_tokens_can_be_revoked(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    mine = me.token.rpartition("_")[0]
    last = await revoked(me.api, mine)
    assert (last["__typename"], last["code"]) == ("ConflictError", "LAST_TOKEN")
    other = await new_tenant(platform, clean, "Other")
    await created(other.api)
    await created(me.api)
    for prefix in (other.token.rpartition("_")[0], me.token, "fwt_aaaaaaaa", ""):
        refused = await revoked(me.api, prefix)
        assert (refused["__typename"], refused["code"]) == ("NotFoundError", "TOKEN_NOT_FOUND"), prefix
    assert (await revoked(me.api, mine))["__typename"] == "RevokeApiTokenSuccess"
