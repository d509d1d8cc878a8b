"""The key store on a real PostgreSQL: what is kept is kept, what is erased stays erased, also for keys that come late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from streams.errors import Transient
from streams.generated import PersonalKind
from streams.ids import OPERATOR_TENANT, new_id
from streams.ingress.credentials import issue, verify
from streams.privacy import key_store as key_store_module
from streams.privacy.envelope import Courier, Envelope, Grant
from streams.privacy.intake import DAYS_AHEAD, Intake
from streams.privacy.key_store import INTAKE, PSEUDONYMS, KeyStore
from streams.privacy.master_key import WrongMasterKey
from streams.privacy.people import Person, Whose, whose
from streams.privacy.sealing import new_key
from tests.ingress import SECRET_KEY
from tests.privacy import ALICE, BOB, OTHER, TENANT, fetch, key_store, made, settings_of

HOUR = timedelta(hours=1)


@pytest.fixture
async def store(database: str, tmp_path: Path) -> AsyncIterator[KeyStore]:
    async with key_store(database, tmp_path) as opened:
        yield opened


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_key_is_kept_for_its_tenant_and_registered_once(store: KeyStore) -> None:
    key = made()
    await store.register([key])
    await store.register([key, made(BOB)])  # the edge did not hear the answer
    assert await store.keys(TENANT, [key.key_id, new_id()]) == {key.key_id: key.key}
    assert await store.keys(OTHER, [key.key_id]) == {}


async def test_no_key_stands_in_the_database_in_the_clear(store: KeyStore, database: str) -> None:
    key = made()
    await store.register([key])
    [row] = await fetch(database, "SELECT data_key::text FROM platform.data_key")
    assert key.key_id.hex in row[0].replace("-", "")
    assert key.key.hex() not in row[0]


async def test_an_erasure_takes_all_keys_of_one_person(store: KeyStore) -> None:
    alice, again, bob = made(), made(), made(BOB)
    elsewhere = made(Whose(OTHER, ALICE.kind, ALICE.subject_tag))
    await store.register([alice, again, bob, elsewhere])
    erasure = uuid4()
    assert await store.destroy(erasure, ALICE) == 2
    assert await store.keys(TENANT, [alice.key_id, again.key_id, bob.key_id]) == {
        alice.key_id: None,
        again.key_id: None,
        bob.key_id: bob.key,
    }
    assert await store.keys(OTHER, [elsewhere.key_id]) == {elsewhere.key_id: elsewhere.key}
    assert await store.destroy(erasure, ALICE) == 2  # done again it says what it was


async def test_a_key_from_before_the_erasure_that_comes_late_is_never_kept(store: KeyStore) -> None:
    """As of an edge that was cut off meanwhile."""
    late = made(at=now() - HOUR)
    await store.destroy(uuid4(), ALICE)
    of_bob, new = made(BOB, at=now() - HOUR), made(at=now() + HOUR)
    await store.register([late, of_bob, new])
    assert await store.keys(TENANT, [late.key_id, of_bob.key_id, new.key_id]) == {
        late.key_id: None,
        of_bob.key_id: of_bob.key,
        new.key_id: new.key,
    }


async def test_no_key_slips_through_between_registering_and_destroying(store: KeyStore) -> None:
    """Both at once, many times: what was made before an erasure is not there after it."""
    for _ in range(20):
        keys = [made() for _ in range(3)]
        await asyncio.gather(store.register(keys), store.destroy(uuid4(), ALICE))
        assert set((await store.keys(TENANT, [k.key_id for k in keys])).values()) == {None}


async def test_whoever_is_frozen_in_the_midst_of_an_erasure_keeps_nobody_waiting(
    store: KeyStore, database: str, tmp_path: Path
) -> None:
    """Its lock would keep every key of every edge out for as long as it is frozen."""
    frozen, key = KeyStore(settings_of(database, tmp_path)), made()

    async def erases() -> None:
        async with frozen._transaction() as db:
            await db.execute(key_store_module._LOCK)
            await asyncio.wait_for(store.register([key]), 180)  # meanwhile it is frozen, and says nothing
            await db.execute(key_store_module._RECORD, new_id(), TENANT, "VIEWER", b"a" * 32, None, 0)

    with pytest.raises(Transient):
        await erases()
    await frozen.close()
    assert await store.keys(TENANT, [key.key_id]) == {key.key_id: key.key}


async def test_a_day_that_is_over_is_due_and_keys_of_it_are_kept_no_more(store: KeyStore, database: str) -> None:
    day = date(2026, 10, 1)
    over, goes_on = (Whose(TENANT, PersonalKind.VIEWER_DAY, None, d) for d in (day, date(2200, 1, 1)))
    keys = [made(over, expires_at=now() + HOUR), made(goes_on, expires_at=now() + HOUR), made()]
    await store.register(keys)
    assert await store.due() == []
    await fetch(database, "UPDATE platform.data_key SET expires_at = now() WHERE key_id = $1", keys[0].key_id)
    assert [(d.tenant_id, d.kind, d.day) for d in await store.due()] == [(TENANT, PersonalKind.VIEWER_DAY, day)]
    late = made(over, expires_at=now() - HOUR)
    await store.register([late])
    assert await store.keys(TENANT, [late.key_id]) == {late.key_id: None}
    assert None not in (await store.keys(TENANT, [keys[1].key_id, keys[2].key_id])).values()


async def test_the_keys_of_a_day_are_made_once_by_whoever_asks_first(store: KeyStore, database: str, tmp_path: Path) -> None:
    async with key_store(database, tmp_path) as other:
        day = now().date()
        asked = [s.day_key(kind, day, now(), now() + HOUR) for s in (store, other) for kind in (INTAKE, PSEUDONYMS)]
        found = await asyncio.gather(*asked)
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert found[0] != found[1]


async def test_the_installations_own_keys_end_too(store: KeyStore) -> None:
    day = now().date()
    assert await store.day_key(INTAKE, day, now() - HOUR, now() - HOUR)
    assert await store.due() == []
    await store.expire_own()
    assert await store.day_key(INTAKE, day, now(), now() + HOUR) is None  # destroyed is not missing


async def test_another_master_key_is_refused_before_anything_is_done(store: KeyStore, database: str, tmp_path: Path) -> None:
    key = made()
    await store.register([key])
    async with key_store(database, tmp_path / "elsewhere") as wrong:
        with pytest.raises(WrongMasterKey, match="FW_MASTER_KEY_FILE"):
            await wrong.keys(TENANT, [key.key_id])
        with pytest.raises(WrongMasterKey):
            await wrong.register([made(BOB)])
    assert not (tmp_path / "elsewhere").exists()  # and none is made for it


async def test_without_its_database_it_says_so(tmp_path: Path) -> None:
    away = KeyStore(settings_of("postgresql://nobody@127.0.0.1:1/none", tmp_path))
    with pytest.raises(Transient, match="key store"):
        await away.due()


# What comes from edges.

NODE = verify(SECRET_KEY, issue(SECRET_KEY, "edge-1", [TENANT]))


@pytest.fixture
async def intake(store: KeyStore) -> Intake:
    intake = Intake(store, SECRET_KEY, kept_days=30)
    await intake.refresh()
    return intake


def envelope(intake: Intake, person: Person, made_ms: int | None = None, day: int = 0) -> tuple[Grant, Envelope]:
    keys = intake.published[day]
    grant = Grant(new_id(), new_key(), person, made_ms or int(now().timestamp() * 1000))
    return grant, Courier(keys.day, keys.intake).envelope(grant)


async def test_an_edge_is_told_of_days_ahead_and_what_it_seals_to_them_opens(intake: Intake, store: KeyStore) -> None:
    today = now().date()
    assert [d.day for d in intake.published] == [today + timedelta(days=n) for n in range(DAYS_AHEAD)]
    alice = Person(TENANT, PersonalKind.VIEWER, "alice")
    sent = [envelope(intake, alice, day=n) for n in (0, DAYS_AHEAD - 1)]
    assert await intake.take([e for _, e in sent], NODE.serves) == {}
    assert await store.keys(TENANT, [g.key_id for g, _ in sent]) == {g.key_id: g.key for g, _ in sent}
    assert await store.destroy(uuid4(), whose(SECRET_KEY, alice)) == 2


async def test_another_process_opens_what_was_sealed_to_this_one(intake: Intake, store: KeyStore) -> None:
    grant, sent = envelope(intake, Person(TENANT, PersonalKind.VIEWER, "alice"))
    other = Intake(store, SECRET_KEY, kept_days=30)
    assert await other.take([sent], NODE.serves) == {}
    assert await store.keys(TENANT, [grant.key_id]) == {grant.key_id: grant.key}


async def test_a_clock_that_is_ahead_makes_no_key_younger_than_an_erasure(intake: Intake, store: KeyStore) -> None:
    alice = Person(TENANT, PersonalKind.VIEWER, "alice")
    grant, sent = envelope(intake, alice, made_ms=int((now() + 100 * HOUR).timestamp() * 1000))
    await intake.take([sent], NODE.serves)
    await store.destroy(uuid4(), whose(SECRET_KEY, alice))
    await intake.take([sent], NODE.serves)
    assert await store.keys(TENANT, [grant.key_id]) == {grant.key_id: None}


@pytest.mark.parametrize(
    ("person", "says"),
    [
        (Person(OTHER, PersonalKind.VIEWER, "alice"), "not bound to tenant"),
        (Person(TENANT, PersonalKind.CONTACT), "no keys of the kind CONTACT"),
        (Person(TENANT, PersonalKind.VIEWER), "needs a subject"),
        (Person(TENANT, PersonalKind.VIEWER_DAY, "alice", date(2026, 11, 21)), "has no subject"),
        (Person(TENANT, PersonalKind.PUBLISHER_DAY), "needs a day"),
    ],
)
async def test_a_key_that_is_not_for_this_node_to_make_is_refused(intake: Intake, person: Person, says: str) -> None:
    grant, sent = envelope(intake, person)
    good, welcome = envelope(intake, Person(TENANT, PersonalKind.VIEWER, "bob"))
    refused = await intake.take([sent, welcome], NODE.serves)
    assert set(refused) == {grant.key_id}
    assert says in refused[grant.key_id]
    assert good.key_id not in refused


async def test_an_envelope_of_a_day_whose_key_is_destroyed_stays_shut(intake: Intake, store: KeyStore, database: str) -> None:
    _, sent = envelope(intake, Person(TENANT, PersonalKind.VIEWER, "alice"))
    await fetch(database, "UPDATE platform.data_key SET expires_at = now() WHERE tenant_id = $1", OPERATOR_TENANT)
    await store.expire_own()
    [sentence] = (await Intake(store, SECRET_KEY, kept_days=30).take([sent], NODE.serves)).values()
    assert "destroyed" in sentence


async def test_bytes_that_are_no_envelope_are_refused(intake: Intake) -> None:
    _, sent = envelope(intake, Person(TENANT, PersonalKind.VIEWER, "alice"))
    broken = Envelope(sent.key_id, sent.day, b"x" * 80, b"")
    far = Envelope(sent.key_id, date(2200, 1, 1), sent.courier, sent.body)
    for wrong in (broken, far):
        assert set(await intake.take([wrong], NODE.serves)) == {sent.key_id}
