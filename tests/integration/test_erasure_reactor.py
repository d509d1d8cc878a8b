"""The erasure reactor with a real command worker: what was decided is done and recorded once, however often it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from commands.reactors.erasure import Erasures
from commands.reactors.follow import Follower
from commands.worker import CommandWorker
from infra.embedded.stack import Stack
from streams.codec import decode, encode
from streams.generated import (
    Decision,
    ErasureReason,
    ErasureRequested,
    Meta,
    PersonalKind,
    RequestErasure,
    SubjectErased,
)
from streams.ids import new_id
from streams.kafka import Kafka, idempotent_producer
from streams.privacy.key_store import KeyStore
from streams.privacy.people import Whose
from streams.topics import Topics, partition_of
from tests.ingress import records
from tests.privacy import ALICE, BOB, TENANT, fetch, key_store, made

WAIT_SECONDS = 180


@dataclass
class Setting:
    """A log, a command worker that runs, a key store; reactors come and go."""

    kafka: str
    topics: Topics
    database: str
    store: KeyStore

    @asynccontextmanager
    async def reactor(self) -> AsyncIterator[Erasures]:
        """A reactor process' life; it is cut off in the middle of whatever it does."""
        async with idempotent_producer(self.kafka, "reactors") as producer:
            erasures = Erasures(self.store, producer, self.topics)
            running = asyncio.create_task(Follower(erasures.reactor, Kafka(self.kafka), self.topics, self.store).run())
            try:
                yield erasures
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    async def request(self, whose: Whose = ALICE) -> UUID:
        """Gives the erasure."""
        erasure_id, command_id = new_id(), new_id()
        now = datetime.now(UTC)
        meta = Meta(command_id, whose.tenant_id, erasure_id, 0, command_id, command_id, now, "test")
        command = RequestErasure(whose.kind, ErasureReason.REQUESTED, whose.subject_tag)
        async with idempotent_producer(self.kafka, "test") as producer:
            await producer.send_and_wait(
                self.topics.commands.name, encode(command, meta), TENANT.bytes, partition=partition_of(TENANT)
            )
        return erasure_id

    async def decisions(self) -> Sequence[tuple[Decision, Meta]]:
        read = [decode(r.value) for r in await records(self.kafka, self.topics.decisions) if r.value]
        return [(event, meta) for event, meta in read if isinstance(event, Decision)]

    async def until_erased(self, count: int) -> Sequence[tuple[Decision, Meta]]:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                found = await self.decisions()
                if sum(isinstance(event, SubjectErased) for event, _ in found) >= count:
                    return found

    async def until_read(self) -> None:
        """Until the reactor's position has passed everything on the log."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                ends = {r.partition: r.offset + 1 for r in await records(self.kafka, self.topics.decisions)}
                rows = await fetch(self.database, "SELECT partition, next_offset FROM platform.reactor_position")
                if ends.items() <= {r["partition"]: r["next_offset"] for r in rows}.items():
                    return


@pytest.fixture
async def setting(stack: Stack, topics: Topics, database: str, tmp_path: Path) -> AsyncIterator[Setting]:
    worker = CommandWorker(Kafka(stack.kafka), topics)
    running = asyncio.create_task(worker.run())
    async with key_store(database, tmp_path) as store:
        yield Setting(stack.kafka, topics, database, store)
    worker.stop()
    await running


async def test_an_erasure_happens_and_is_recorded_once_however_often_the_reactor_begins_again(setting: Setting) -> None:
    keys, of_bob = [made(), made()], made(BOB)
    await setting.store.register([*keys, of_bob])
    erasure_id = await setting.request()
    async with setting.reactor():
        await setting.until_erased(1)
    since = made()  # Alice came back
    await setting.store.register([since])
    await fetch(setting.database, "DELETE FROM platform.reactor_position")  # died before its position moved
    async with setting.reactor():
        await setting.until_read()
    found = await setting.decisions()
    assert [(event, meta.version) for event, meta in found if meta.aggregate_id == erasure_id] == [
        (ErasureRequested(PersonalKind.VIEWER, ErasureReason.REQUESTED, ALICE.subject_tag), 1),
        (SubjectErased(PersonalKind.VIEWER, ErasureReason.REQUESTED, 2, ALICE.subject_tag), 2),
    ]
    assert {meta.correlation_id for _, meta in found} == {found[0][1].correlation_id}
    left = await setting.store.keys(TENANT, [k.key_id for k in (*keys, of_bob, since)])
    assert left == {keys[0].key_id: None, keys[1].key_id: None, of_bob.key_id: of_bob.key, since.key_id: since.key}


async def test_what_a_backup_brings_back_is_erased_again(setting: Setting) -> None:
    """Keys and records are restored as they were before the erasure; the log knows better."""
    key = made()
    await setting.store.register([key])
    backup = await fetch(setting.database, "SELECT wrapped FROM platform.data_key WHERE key_id = $1", key.key_id)
    await setting.request()
    async with setting.reactor():
        await setting.until_erased(1)
    for statement in ("DELETE FROM platform.reactor_position", "DELETE FROM platform.erasure"):
        await fetch(setting.database, statement)
    restore = "UPDATE platform.data_key SET wrapped = $2, destroyed_at = NULL WHERE key_id = $1"
    await fetch(setting.database, restore, key.key_id, backup[0]["wrapped"])
    assert await setting.store.keys(TENANT, [key.key_id]) == {key.key_id: key.key}
    async with setting.reactor():
        await setting.until_read()
    assert await setting.store.keys(TENANT, [key.key_id]) == {key.key_id: None}


async def test_keys_whose_time_is_over_are_erased_by_a_decision_like_any_other(setting: Setting) -> None:
    now = datetime.now(UTC)
    yesterday = Whose(TENANT, PersonalKind.VIEWER_DAY, None, now.date() - timedelta(days=1))
    old, lasting = made(yesterday, expires_at=now + timedelta(days=1)), made()
    await setting.store.register([old, lasting])
    await fetch(setting.database, "UPDATE platform.data_key SET expires_at = now() WHERE day IS NOT NULL")
    async with setting.reactor() as erasures:
        expiring = asyncio.create_task(erasures.keep_expiring(every_seconds=0.2))  # asks more than once: one command all the same
        found = await setting.until_erased(1)
        expiring.cancel()
        await setting.until_read()
    [requested, erased] = [event for event, _ in found]
    day = yesterday.day.isoformat() if yesterday.day else ""
    assert requested == ErasureRequested(PersonalKind.VIEWER_DAY, ErasureReason.EXPIRED, None, day)
    assert erased == SubjectErased(PersonalKind.VIEWER_DAY, ErasureReason.EXPIRED, 1, None, day)
    assert len(await setting.decisions()) == 2
    left = await setting.store.keys(TENANT, [old.key_id, lasting.key_id])
    assert left == {old.key_id: None, lasting.key_id: lasting.key}
