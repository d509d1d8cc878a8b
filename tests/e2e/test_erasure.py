"""Erasure on the whole platform: two tenants, viewers with names and without, publishers, contacts, unreadable messages. One
viewer and one contact are erased; then every byte of every store is searched for what was never to be written anywhere.

The search is proven able to find: each store holds a mark of the same traffic, written beside what is sealed.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.embedded.stack import Stack
from projections import clickhouse, personal
from streams.archive.container import blocks
from streams.errors import Invalid
from streams.privacy.master_key import MasterKey
from streams.privacy.sealing import unseal
from tests.platform import Platform, until
from tests.stack import blocking
from tests.up import fw

Json = dict[str, Any]
SESSIONS = """query ($id: ID!) { stream(id: $id) {
  viewers { now peak total }
  sessions { nodes { id sessionId seconds upBytes downBytes connector address subject isErased } }
  ingests { nodes { id protocol address isErased } } } }"""
ERASE = """mutation ($input: EraseSubjectInput!) { eraseSubject(input: $input) { __typename
  ... on EraseSubjectSuccess { erasureId } ... on Error { code message } } }"""
ERASURES = "{ erasures { id kind reason day erasedAt keysDestroyed requestedBy } }"


def address() -> str:
    """An address that stands nowhere else on the machine."""
    return "2001:db8:" + ":".join(f"{secrets.randbelow(1 << 16) | 0x1000:x}" for _ in range(6))


@dataclass
class Tenant:
    """One tenant's traffic, and what of it must never be readable on any disk."""

    platform: Platform
    contact: str = field(default_factory=lambda: f"{secrets.token_hex(8)}@{secrets.token_hex(8)}.example")
    mark: str = field(default_factory=lambda: f"mark{secrets.token_hex(8)}")  # stands beside what is sealed
    alice: tuple[str, str] = field(default_factory=lambda: (f"alice-{secrets.token_hex(8)}", address()))
    bob: tuple[str, str] = field(default_factory=lambda: (f"bob-{secrets.token_hex(8)}", address()))
    anonymous: str = field(default_factory=address)
    publisher: str = field(default_factory=address)

    def __post_init__(self) -> None:
        made = self.platform.query(
            """mutation ($input: CreateTenantInput!) { createTenant(input: $input) {
                 __typename ... on CreateTenantSuccess { apiToken tenant { id } } ... on Error { code message } } }""",
            {"input": {"name": self.mark, "contactEmail": self.contact}},
            self.platform.up["operator_token"],
        )["createTenant"]
        assert made["__typename"] == "CreateTenantSuccess", made
        self.token, self.id = made["apiToken"], UUID(made["tenant"]["id"])
        self.stream_id, self.key = self.platform.create_stream(self.token, self.mark)
        until(lambda: self._stream() is not None, 180, "the stream to be readable")
        self.media_name = f"live+{(self._stream() or {})['internalName']}"

    def _stream(self) -> Json | None:
        found: Json | None = self.query("query ($id: ID!) { stream(id: $id) { internalName } }", {"id": self.stream_id})["stream"]
        return found

    @property
    def secrets(self) -> list[str]:
        return [self.contact, *self.alice, *self.bob, self.anonymous, self.publisher]

    def query(self, document: str, variables: Json | None = None) -> Json:
        return self.platform.query(document, variables, self.token)

    def trigger(self, name: str, body: str, pid: int = 7) -> None:
        headers = {"X-Trigger-UUID": str(uuid4()), "X-PID": str(pid), "X-Instance": "erasure"}
        answer = self.platform.http.post(f"{self.platform.up['edge']}/trigger/{name}", content=body, headers=headers)
        assert answer.status_code == 200, answer.text

    def watches(self, viewer: str, name: str | None) -> str:
        """A viewing from beginning to end; its session id."""
        session = sha256(f"{self.mark} {viewer} {uuid4()}".encode()).hexdigest()
        token = jwt.encode({"sub": name}, "k" * 32, "HS256") if name else ""
        url = f"http://edge/hls/x.m3u8?jwt={token}"
        self.trigger("USER_NEW", f"{self.media_name}\n{viewer}\n{secrets.token_hex(8)}\n{self.mark}\n{url}\n{session}\nfalse")
        self.trigger("USER_END", f"t\n{self.media_name}\n{self.mark}\n{viewer}\n14\n1000\n200\n\n14\n14\n14\n{session}")
        return session

    def publishes(self) -> None:
        url, pid = f"rtmp://edge/live/{self.key}", secrets.randbelow(1 << 30)
        self.trigger("PUSH_REWRITE", f"{url}\n{self.publisher}\n{self.key}", pid)
        self.trigger("STREAM_PUSH", f"{self.media_name}\n{self.publisher}\nRTMP\n{url}", pid)

    def raw_body(self) -> None:
        """A message that is unreadable, with everything in it that we look for."""
        self.trigger("STREAM_BUFFER", f"{self.mark}\n" + "\n".join(self.secrets))

    def shown(self) -> Json:
        stream: Json = self.query(SESSIONS, {"id": self.stream_id})["stream"]
        return stream

    def session(self, session_id: str) -> Json:
        [found] = [s for s in self.shown()["sessions"]["nodes"] if s["sessionId"] == session_id]
        return dict(found)

    def erase(self, **wanted: object) -> str:
        answer = self.query(ERASE, {"input": wanted})["eraseSubject"]
        assert answer["__typename"] == "EraseSubjectSuccess", answer
        until(lambda: self._is_erased(answer["erasureId"]), 180, "the erasure")
        return str(answer["erasureId"])

    def _is_erased(self, erasure_id: str) -> bool:
        return any(e["id"] == erasure_id and e["erasedAt"] for e in self.query(ERASURES)["erasures"])


@dataclass(frozen=True)
class Traffic:
    one: Tenant
    two: Tenant
    sessions: dict[str, str]


@pytest.fixture(scope="module")
def traffic(platform: Platform) -> Traffic:
    """What two tenants' people did; everything can be read by their tenants when this returns."""
    one, two = Tenant(platform), Tenant(platform)
    sessions = {}
    for name, tenant in (("one", one), ("two", two)):
        sessions[f"{name} alice"] = tenant.watches(tenant.alice[1], tenant.alice[0])
        sessions[f"{name} bob"] = tenant.watches(tenant.bob[1], tenant.bob[0])
        sessions[f"{name} anonymous"] = tenant.watches(tenant.anonymous, None)
        tenant.publishes()
        tenant.raw_body()
    for tenant in (one, two):

        def all_open(tenant: Tenant = tenant) -> bool:
            shown = tenant.shown()
            nodes = shown["sessions"]["nodes"]
            opened = [row["address"] for row in (*nodes, *shown["ingests"]["nodes"])]
            return len(opened) == 4 and all(opened) and all(n["seconds"] is not None for n in nodes)

        until(all_open, 180, "four addresses that can be read")
    return Traffic(one, two, sessions)


def found_in(texts: Iterable[str], where: Iterable[Path]) -> set[str]:
    """Which of the texts stand in any file there, byte for byte."""
    wanted = [part for text in texts for part in ("-e", text)]
    done = subprocess.run(["grep", "-rhoaF", *wanted, *map(str, where)], capture_output=True, check=False)
    # 2: a file went while it ran (a merged part, a checkpointed segment)
    assert done.returncode in (0, 1) or all(b"No such file" in line for line in done.stderr.splitlines()), done.stderr
    return {line.decode() for line in done.stdout.splitlines()}


def test_the_tenant_reads_what_is_sealed(traffic: Traffic) -> None:
    one, two = traffic.one, traffic.two
    shown = one.session(traffic.sessions["one alice"])
    assert (shown["subject"], shown["address"], shown["isErased"]) == (*one.alice, False)
    shown = two.session(traffic.sessions["two anonymous"])
    assert (shown["subject"], shown["address"], shown["isErased"]) == (None, two.anonymous, False)
    [ingest] = one.shown()["ingests"]["nodes"]
    assert (ingest["address"], ingest["isErased"]) == (one.publisher, False)
    contact = "{ tenant { contactEmail contactIsErased } }"
    assert one.query(contact)["tenant"] == {"contactEmail": one.contact, "contactIsErased": False}


def test_an_erasure_takes_one_person_and_nothing_else(traffic: Traffic, stack: Stack, platform: Platform) -> None:
    one, two, sessions = traffic.one, traffic.two, traffic.sessions
    before, sealed = one.shown(), blocking(_sealed(platform, one))
    assert _opens(platform, one, sealed) == {*one.alice, *one.bob, one.anonymous}

    erasure_id = one.erase(subject=one.alice[0])
    one.erase(contact=True)

    erased = one.session(sessions["one alice"])
    assert (erased["subject"], erased["address"], erased["isErased"]) == (None, None, True)
    assert one.query("{ tenant { contactEmail contactIsErased } }")["tenant"] == {"contactEmail": None, "contactIsErased": True}
    for tenant, name, person in ((one, "one bob", one.bob), (two, "two alice", two.alice), (two, "two bob", two.bob)):
        shown = tenant.session(sessions[name])
        assert (shown["subject"], shown["address"], shown["isErased"]) == (*person, False)
    # totals and sessions stay as they were, to the byte
    after = one.shown()
    hidden = ("address", "subject", "isErased")
    plain = [[{k: v for k, v in n.items() if k not in hidden} for n in s["sessions"]["nodes"]] for s in (before, after)]
    assert plain[0] == plain[1]
    assert (before["viewers"], before["ingests"]) == (after["viewers"], after["ingests"])
    # no key that is left opens what is in the tables
    assert _opens(platform, one, sealed) == {*one.bob, one.anonymous}
    [told] = [e for e in one.query(ERASURES)["erasures"] if e["id"] == erasure_id]
    assert (told["kind"], told["reason"], told["keysDestroyed"]) == ("VIEWER", "REQUESTED", 1)
    assert not [e for e in two.query(ERASURES)["erasures"] if e["reason"] == "REQUESTED"]


def test_nothing_personal_is_in_any_byte_of_any_store(traffic: Traffic, stack: Stack, platform: Platform) -> None:
    every = [*traffic.one.secrets, *traffic.two.secrets]
    servers = Path(stack.data_dir)
    stores = {name: [servers / name] for name in ("kafka", "postgres", "clickhouse")}
    stores["edge"] = [platform.data_dir / "edge"]
    for name, where in stores.items():
        assert found_in([traffic.one.mark, traffic.two.mark], where) == {traffic.one.mark, traffic.two.mark}, name
    # logs and the supervisor's state: the traffic leaves no mark there, they have others
    everything = [servers, platform.data_dir]
    assert found_in(["listening for triggers"], [platform.data_dir / "logs"])
    assert found_in([platform.up["operator_token"]], [platform.data_dir])
    assert found_in(every, everything) == set()
    tables = blocking(_postgres_rows(platform))
    assert traffic.one.mark.encode() in tables
    assert not [secret for secret in every if secret.encode() in tables]


def test_nothing_personal_is_in_the_archive_or_a_backup(traffic: Traffic, platform: Platform, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    done = fw("backup", str(target), "--json", "--data-dir", str(platform.data_dir), env=topics_of(platform), timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [file for folder in (target, platform.data_dir / "archive") for file in folder.rglob("*") if file.is_file()]
    unpacked = b"\n".join(file.read_bytes() + _unpacked(file) for file in files)
    assert all(mark.encode() in unpacked for mark in (traffic.one.mark, traffic.two.mark))
    assert not [secret for secret in (*traffic.one.secrets, *traffic.two.secrets) if secret.encode() in unpacked]
    assert (platform.data_dir / "master.key").read_bytes().strip() not in unpacked


def test_who_comes_back_has_a_new_key(traffic: Traffic, platform: Platform) -> None:
    """The edge still has the old one in memory; what it seals with that stays unreadable, and the next key is good again."""
    one = traffic.one
    if not one.session(traffic.sessions["one alice"])["isErased"]:
        one.erase(subject=one.alice[0])
    pid = platform.status()["processes"]["edge"]["pid"]
    subprocess.run(["kill", "-9", str(pid)], check=True)  # as after the ten minutes for which a key is used
    until(lambda: platform.status()["processes"]["edge"]["pid"] not in (None, pid), 180, "another edge agent")
    platform.edge_knows(one.media_name.removeprefix("live+"))
    again = one.watches(one.alice[1], one.alice[0])

    def is_open() -> bool:
        shown = [s for s in one.shown()["sessions"]["nodes"] if s["sessionId"] == again]
        return bool(shown) and shown[0]["address"] == one.alice[1]

    until(is_open, 180, "the address of who came back")
    assert one.session(traffic.sessions["one alice"])["isErased"]


def test_a_day_of_anonymous_viewers_can_be_erased(traffic: Traffic) -> None:
    two = traffic.two
    two.erase(viewerDay=datetime.now(UTC).date().isoformat())
    assert two.session(traffic.sessions["two anonymous"])["isErased"]
    assert two.session(traffic.sessions["two bob"])["address"] == two.bob[1]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [({}, "SUBJECT_INVALID"), ({"subject": "a", "contact": True}, "SUBJECT_INVALID"), ({"viewerDay": "today"}, "DAY_INVALID")],
)
def test_what_cannot_be_erased_is_refused_with_a_sentence(traffic: Traffic, wanted: Json, code: str) -> None:
    answer = traffic.one.query(ERASE, {"input": wanted})["eraseSubject"]
    assert answer["code"] == code
    assert len(answer["message"]) > 20


def topics_of(platform: Platform) -> dict[str, str]:
    """How the shared platform's topics are told from those of others on the servers."""
    return {"FW_TOPIC_PREFIX": f"{urlsplit(platform.up['postgres']).path[1:]}."}


def _unpacked(file: Path) -> bytes:
    """What an archived range of the log says; nothing for another file."""
    data = file.read_bytes()
    return b"".join(rows for _, rows in blocks(data)) if data.startswith(b"Obj\x01") else b""


async def _sealed(platform: Platform, tenant: Tenant) -> list[tuple[bytes, UUID, str]]:
    """What stands in ClickHouse of a tenant's viewers."""
    ch = await clickhouse.connect(platform.up["clickhouse"])
    try:
        found = await personal.of_viewings(ch, tenant.id, [UUID(n["id"]) for n in tenant.shown()["sessions"]["nodes"]])
    finally:
        await ch.close()
    return [(s.value, s.event_id, s.field) for pair in found.values() for s in pair if s is not None]


def _opens(platform: Platform, tenant: Tenant, sealed: Iterable[tuple[bytes, UUID, str]]) -> set[str]:
    """What somebody reads who has the whole database and the master key."""
    master = MasterKey(bytes.fromhex((platform.data_dir / "master.key").read_text()))

    async def keys() -> list[asyncpg.Record]:
        db = await asyncpg.connect(platform.up["postgres"])
        try:
            return list(await db.fetch("SELECT * FROM platform.data_key WHERE wrapped IS NOT NULL"))
        finally:
            await db.close()

    opened = set()
    for row in blocking(keys()):
        bound = row["key_id"].bytes + row["tenant_id"].bytes + row["kind"].encode()
        key = AESGCM(master.unwrap(row["wrapped"], bound))
        for value, event_id, name in sealed:
            try:
                opened.add(unseal(key, value, tenant_id=tenant.id, event_id=event_id, field=name).decode())
            except Invalid:
                pass
    return opened


async def _postgres_rows(platform: Platform) -> bytes:
    """Every row of every table, as the server stores its values."""
    db, out = await asyncpg.connect(platform.up["postgres"]), BytesIO()
    try:
        tables = await db.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for schema, table in tables:
            await db.copy_from_table(table, schema_name=schema, output=out, format="binary")
    finally:
        await db.close()
    return out.getvalue()
