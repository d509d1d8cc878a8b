"""Sealing, envelopes and tags: what opens, for whom, and what never does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from streams.errors import Invalid
from streams.generated import PersonalKind
from streams.ids import new_id
from streams.privacy.envelope import Courier, Envelope, Grant, Opener, public_key
from streams.privacy.master_key import MasterKey, WrongMasterKey, master_key, master_key_file
from streams.privacy.people import Person, expires_at, subject_tag, viewer_day, whose
from streams.privacy.sealing import key_id_of, new_key, seal, unseal
from streams.registry import by_name
from streams.settings import Settings, SettingsError
from streams.topics import Topics
from tests.ingress import ingress_settings

TENANT, OTHER, EVENT, KEY_ID = (UUID(int=n) for n in (1, 2, 3, 4))
TODAY = date(2026, 11, 21)
INTAKE = bytes(range(32))
ALICE = Person(TENANT, PersonalKind.VIEWER, "alice")
KEY = bytes(range(1, 33))


def sealed(value: bytes = b"203.0.113.7") -> bytes:
    return seal(AESGCM(KEY), KEY_ID, value, tenant_id=TENANT, event_id=EVENT, field="address")


@how(deadline=None)
@given(st.binary(max_size=2000))
def test_what_is_sealed_opens_as_it_was(value: bytes) -> None:
    assert unseal(AESGCM(KEY), sealed(value), tenant_id=TENANT, event_id=EVENT, field="address") == value
    assert key_id_of(sealed(value)) == KEY_ID


def test_the_same_value_is_never_sealed_to_the_same_bytes() -> None:
    assert len({sealed() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("tenant_id", "event_id", "field", "key"),
    [
        (OTHER, EVENT, "address", KEY),
        (TENANT, OTHER, "address", KEY),
        (TENANT, EVENT, "subject", KEY),
        (TENANT, EVENT, "address", INTAKE),
    ],
)
def test_it_opens_nowhere_else(tenant_id: UUID, event_id: UUID, field: str, key: bytes) -> None:
    with pytest.raises(Invalid):
        unseal(AESGCM(key), sealed(), tenant_id=tenant_id, event_id=event_id, field=field)


@how(deadline=None)
@given(st.integers(0, 55), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, change: int) -> None:
    value = bytearray(sealed())
    place %= len(value)
    value[place] ^= change
    with pytest.raises(Invalid):
        unseal(AESGCM(KEY), bytes(value), tenant_id=TENANT, event_id=EVENT, field="address")


@how(deadline=None)
@given(st.binary(max_size=100))
def test_what_was_never_sealed_is_invalid(value: bytes) -> None:
    with pytest.raises(Invalid):
        unseal(AESGCM(KEY), value, tenant_id=TENANT, event_id=EVENT, field="address")


def grant(person: Person = ALICE) -> Grant:
    return Grant(new_id(), new_key(), person, 1_795_262_400_000)


def test_the_platform_opens_what_an_edge_handed_over() -> None:
    courier, opener = Courier(TODAY, public_key(INTAKE)), Opener()
    grants = [
        grant(),
        grant(Person(TENANT, PersonalKind.VIEWER_DAY, day=TODAY)),
        grant(replace(ALICE, subject="bob \N{SNOWMAN}")),
    ]
    assert [opener.open(courier.envelope(g), INTAKE) for g in grants] == grants


def test_nothing_of_a_grant_can_be_read_in_its_envelope() -> None:
    given_away = grant()
    envelope = Courier(TODAY, public_key(INTAKE)).envelope(given_away)
    written = envelope.courier + envelope.body
    assert given_away.key not in written
    assert b"alice" not in written


def test_an_envelope_opens_with_its_own_intake_key_as_its_own_key_and_on_its_own_day() -> None:
    envelope = Courier(TODAY, public_key(INTAKE)).envelope(grant())
    wrong: list[tuple[Envelope, bytes]] = [
        (envelope, KEY),
        (replace(envelope, key_id=new_id()), INTAKE),
        (replace(envelope, day=TODAY + timedelta(days=1)), INTAKE),
        (replace(envelope, body=envelope.body[:-1]), INTAKE),
        (replace(envelope, body=b""), INTAKE),
        (replace(envelope, courier=envelope.courier[:40]), INTAKE),
    ]
    for changed, intake in wrong:
        with pytest.raises(Invalid):
            Opener().open(changed, intake)


def test_a_tag_says_nothing_and_tells_people_apart() -> None:
    secret = bytes(32)
    tags = {subject_tag(secret, TENANT, "alice"), subject_tag(secret, OTHER, "alice"), subject_tag(secret, TENANT, "bob")}
    tags.add(subject_tag(KEY, TENANT, "alice"))
    assert len(tags) == 4
    assert whose(secret, ALICE).subject_tag == subject_tag(secret, TENANT, "alice")
    assert whose(secret, Person(TENANT, PersonalKind.VIEWER_DAY, day=TODAY)).subject_tag is None


def test_a_viewer_is_recognised_within_a_day_and_a_tenant_only() -> None:
    monday, tuesday = bytes(32), KEY
    assert viewer_day(monday, TENANT, "203.0.113.7") == viewer_day(monday, TENANT, "203.0.113.7")
    assert len({viewer_day(d, t, "203.0.113.7") for d in (monday, tuesday) for t in (TENANT, OTHER)}) == 4


def test_a_days_keys_end_so_many_days_after_it() -> None:
    assert expires_at(TODAY, 30) == datetime(2026, 12, 22, tzinfo=UTC)
    assert expires_at(TODAY, 0) == datetime(2026, 11, 22, tzinfo=UTC)
    assert expires_at(None, 30) is None


def settings(data_dir: Path, file: Path | None = None, command: str | None = None) -> Settings:
    return replace(ingress_settings("", Topics()), data_dir=data_dir, master_key_file=file, master_key_command=command)


def test_the_master_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    here = settings(tmp_path / "data")
    made = master_key(here, may_make=True)
    assert master_key(here, may_make=True) == made
    assert master_key_file(here).stat().st_mode & 0o777 == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["master.key"]
    assert made.key.hex() not in repr(made)


def test_a_master_key_is_not_made_where_keys_are_wrapped_by_another(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FW_MASTER_KEY_FILE"):
        master_key(settings(tmp_path), may_make=False)
    assert not list(tmp_path.iterdir())


def test_a_command_may_give_the_master_key(tmp_path: Path) -> None:
    """As a key management service does."""
    (tmp_path / "wrapped").write_text(KEY.hex()[::-1] + "\n")
    assert master_key(settings(tmp_path, command=f"rev < {tmp_path}/wrapped"), may_make=True) == MasterKey(KEY)
    assert not (tmp_path / "master.key").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo denied >&2; exit 3", "ended with 3: denied"),
        ("echo short", "64 hexadecimal digits"),
        ("true", "64 hexadecimal digits"),
    ],
)
def test_a_command_that_gives_none_is_told(tmp_path: Path, command: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        master_key(settings(tmp_path, command=command), may_make=True)


def test_a_wrapped_key_opens_with_its_master_key_and_in_its_row() -> None:
    wrapped = MasterKey(KEY).wrap(INTAKE, b"row")
    assert INTAKE not in wrapped
    assert MasterKey(KEY).unwrap(wrapped, b"row") == INTAKE
    for master, row in ((INTAKE, b"row"), (KEY, b"other row")):
        with pytest.raises(WrongMasterKey):
            MasterKey(master).unwrap(wrapped, row)


def test_every_field_that_the_schemas_call_personal_is_sealed_bytes() -> None:
    """Whoever adds one finds it here: it must hold ciphertext, and be missing where nothing was sealed."""
    personal = {
        f"{name}.{field['name']}": (field["type"], field["personal"])
        for name, known in by_name().items()
        for field in known.schema["fields"]  # type: ignore[attr-defined]  # what an Avro record has
        if "personal" in field
    }
    assert {kind.lower() for kind in PersonalKind} >= {rule for _, rule in personal.values()}
    assert all(kind == ["null", "bytes"] for kind, _ in personal.values())
    assert {"ViewerJoined.address", "ViewerJoined.subject", "TriggerInvalid.sealed_body"} <= set(personal)
