"""Load: changes of the control plane through GraphQL, each with a key of its own.

What a careful client does: whatever is no definite answer (an error of the network, UNAVAILABLE, PendingResult) is followed by
the same request with the same key, until there is one. Some requests are repeated although they were answered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import httpx

from infra.chaos.ledger import Fields, Ledger, Owed
from streams.ids import OPERATOR_TENANT, command_id

PATIENCE_SECONDS: Final = 180.0
RETRY_SECONDS: Final = 0.2
REPEATED: Final = 0.15  # share of requests that are sent again after their answer
TRANSIENT: Final = frozenset({"UNAVAILABLE", "INTERNAL", "RATE_LIMITED"})

_FIELDS: Final = {
    "createTenant": "apiToken tenant { id }",
    "createApiToken": "apiToken tokenPrefix",
    "revokeApiToken": "tokenPrefix",
    "createStream": "streamKey stream { id internalName playbackId slug }",
    "renameStream": "clientMutationId",
    "rotateStreamKey": "streamKey",
    "deleteStream": "streamId",
}


def owed(mutation: str, values: Fields) -> list[Owed]:
    """The decisions that a successful mutation stands for."""
    match mutation:
        case "createTenant":
            return [Owed("TenantRegistered", {"name": values["name"]}), Owed("ApiTokenIssued")]
        case "createApiToken":
            return [Owed("ApiTokenIssued", {"name": values["name"]})]
        case "revokeApiToken":
            return [Owed("ApiTokenRevoked", {"token_prefix": values["tokenPrefix"]})]
        case "createStream":
            return [Owed("StreamCreated", {"title": values["title"]})]
        case "renameStream":
            return [Owed("StreamRenamed", {"title": values["title"]})]
        case "rotateStreamKey":
            return [Owed("StreamKeyRotated")]
        case "deleteStream":
            return [Owed("StreamDeleted")]
    raise ValueError(mutation)


def document(mutation: str) -> str:
    kind = mutation[0].upper() + mutation[1:]
    return (
        f"mutation ($input: {kind}Input!) {{ {mutation}(input: $input) {{ __typename"
        f" ... on {kind}Success {{ {_FIELDS[mutation]} }} ... on Error {{ code message }} }} }}"
    )


class Unanswered(Exception):
    """Patience ended before there was a definite answer."""


@dataclass(slots=True)
class Made:
    """A stream as its creator knows it."""

    id: str
    internal_name: str
    key: str


@dataclass(slots=True)
class Client:
    """A client of the API with one credential."""

    url: str
    token: str
    tenant: UUID
    ledger: Ledger
    random: random.Random
    http: httpx.AsyncClient
    retries: int = 0
    sent: int = field(default=0)

    async def change(self, mutation: str, **values: object) -> Mapping[str, object]:
        """Sends a change until it is answered. Gives the payload: a success or a refusal. Raises Unanswered."""
        self.sent += 1
        key = f"{self.random.getrandbits(64):016x}"
        subject = str(command_id(self.tenant, key))
        request = {"mutation": mutation, "input": {**values, "clientMutationId": key}}
        number = await self.ledger.begin("command", str(self.tenant), subject, request, owed(mutation, values))
        payload = await self._until_answered(mutation, request["input"])
        await self.ledger.answered(number, payload, None if is_success(payload) else [])
        while self.random.random() < REPEATED:
            again = await self._until_answered(mutation, request["input"])
            await self.ledger.answered(number, again)
        return payload

    async def _until_answered(self, mutation: str, values: object) -> Mapping[str, object]:
        body = {"query": document(mutation), "variables": {"input": values}}
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    payload = await self._ask(mutation, body)
                    if payload is not None:
                        return payload
                    self.retries += 1
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            raise Unanswered(f"{mutation}: no definite answer in {PATIENCE_SECONDS:.0f} s") from None

    async def _ask(self, mutation: str, body: object) -> Mapping[str, object] | None:
        """The payload; None where it is not definite."""
        try:
            answer = await self.http.post(self.url, json=body, headers={"Authorization": f"Bearer {self.token}"})
            found = answer.json()
        except (httpx.HTTPError, ValueError):
            return None
        if found.get("errors"):
            if TRANSIENT & {str(error.get("extensions", {}).get("code")) for error in found["errors"]}:
                return None
            raise ValueError(f"{mutation} cannot be asked so: {found['errors']}")
        payload: Mapping[str, object] = found["data"][mutation]
        return None if payload["__typename"] == "PendingResult" or payload.get("code") == "UNAUTHENTICATED" else payload


def is_success(payload: Fields) -> bool:
    return str(payload["__typename"]).endswith("Success")


def operator(url: str, token: str, ledger: Ledger, dice: random.Random, http: httpx.AsyncClient) -> Client:
    return Client(url, token, OPERATOR_TENANT, ledger, dice, http)


async def tenant(made_by: Client, name: str) -> Client:
    """A new tenant, and a client that speaks for it."""
    made = await made_by.change("createTenant", name=name)
    found = made["tenant"]
    assert isinstance(found, dict), made
    return Client(made_by.url, str(made["apiToken"]), UUID(found["id"]), made_by.ledger, made_by.random, made_by.http)


async def stream(client: Client, title: str) -> Made:
    made = await client.change("createStream", title=title)
    found = made["stream"]
    assert isinstance(found, dict), made
    return Made(str(found["id"]), str(found["internalName"]), str(made["streamKey"]))


async def keep_changing(client: Client, name: str, shared: Sequence[Made], stop: asyncio.Event) -> None:
    """One change after the other, of all kinds, until told to stop. `shared` streams are renamed, and otherwise left alone."""
    streams: list[Made] = []
    tokens: list[str] = []
    while not stop.is_set():
        n = client.sent
        match client.random.choice(("create", "rename", "rename", "rename", "rotate", "delete", "token", "revoke", "wrong")):
            case "create":
                streams.append(await stream(client, f"{name} {n}"))
            case "rename":
                named = client.random.choice([*streams, *shared])
                await client.change("renameStream", streamId=named.id, title=f"{name} renamed {n}")
            case "rotate" if streams:
                await client.change("rotateStreamKey", streamId=client.random.choice(streams).id)
            case "delete" if len(streams) > 3:
                await client.change("deleteStream", streamId=streams.pop(0).id)
            case "token":
                tokens.append(str((await client.change("createApiToken", name=f"{name} {n}"))["tokenPrefix"]))
            case "revoke" if tokens:
                await client.change("revokeApiToken", tokenPrefix=tokens.pop())
            case "wrong":  # the business says no: an answer like any other
                await client.change("renameStream", streamId=str(command_id(client.tenant, f"none {n}")), title=f"{name} {n}")
            case _:
                pass
        await asyncio.sleep(client.random.uniform(0.0, 0.2))
