"""Data keys over the wire: a node is told what to seal with, hands keys over, and is refused when it should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import grpc
import grpc.aio
import pytest

from infra.embedded.stack import Stack
from infra.processes.ingress import running
from projections.platform import migrate
from streams.generated import PersonalKind
from streams.ids import new_id
from streams.ingress.credentials import issue
from streams.ingress.keys import MAX_ENVELOPES, hand_over
from streams.ingress.line import Line
from streams.ingress.policy_client import watch_policy
from streams.privacy.envelope import Courier, DayKeys, Envelope, Grant
from streams.privacy.key_store import KeyStore
from streams.privacy.people import Person
from streams.privacy.sealing import new_key
from streams.topics import Topics
from tests.ingress import SECRET_KEY
from tests.privacy import OTHER, TENANT, settings_of

WAIT_SECONDS = 180


def credential() -> str:
    return issue(SECRET_KEY, "edge-1", [TENANT])


@pytest.fixture
async def address(stack: Stack, topics: Topics, database: str, tmp_path: Path) -> AsyncIterator[str]:
    """An ingress that began before its database was migrated: keys come when there can be any."""
    async with running(settings_of(database, tmp_path, stack.kafka, topics)) as ingress:
        await migrate(database)
        yield f"127.0.0.1:{ingress.port}"


async def published(address: str) -> tuple[DayKeys, ...]:
    """What a node is told to seal with, as soon as it is told."""
    async with asyncio.timeout(WAIT_SECONDS), aclosing(watch_policy(address, credential, Line())) as news:
        async for told in news:
            if told.days:
                return told.days
    raise AssertionError("a policy has no end")


def sealed(days: tuple[DayKeys, ...], person: Person) -> tuple[Grant, Envelope]:
    grant = Grant(new_id(), new_key(), person, int(datetime.now(UTC).timestamp() * 1000))
    return grant, Courier(days[0].day, days[0].intake).envelope(grant)


async def test_a_node_hands_over_a_key_and_the_platform_has_it(address: str, database: str, tmp_path: Path) -> None:
    days = await published(address)
    assert days[0].day == datetime.now(UTC).date() or days[0].day == date.fromordinal(datetime.now(UTC).toordinal() - 1)
    grant, envelope = sealed(days, Person(TENANT, PersonalKind.VIEWER, "alice"))
    foreign, refused = sealed(days, Person(OTHER, PersonalKind.VIEWER, "alice"))
    assert set(await hand_over(address, credential, [envelope, refused])) == {foreign.key_id}
    assert await hand_over(address, credential, [envelope]) == {}  # the answer was lost
    store = KeyStore(settings_of(database, tmp_path))
    try:
        assert await store.keys(TENANT, [grant.key_id]) == {grant.key_id: grant.key}
        assert await store.keys(OTHER, [foreign.key_id]) == {}
    finally:
        await store.close()


async def test_what_is_no_request_is_refused(address: str) -> None:
    days = await published(address)
    _, envelope = sealed(days, Person(TENANT, PersonalKind.VIEWER, "alice"))
    with pytest.raises(grpc.aio.AioRpcError) as anonymous:
        await hand_over(address, lambda: "nobody", [envelope])
    assert anonymous.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as too_many:
        await hand_over(address, credential, [envelope] * (MAX_ENVELOPES + 1))
    assert too_many.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_without_a_key_store_nothing_is_promised(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    settings = settings_of("postgresql://nobody@127.0.0.1:1/none", tmp_path, stack.kafka, topics)
    async with running(settings) as ingress:
        await ingress.ready()  # facts and policy need no database
        envelope = Envelope(uuid4(), datetime.now(UTC).date(), b"", b"")
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await hand_over(f"127.0.0.1:{ingress.port}", credential, [envelope])
        assert away.value.code() is grpc.StatusCode.UNAVAILABLE
