"""A node takes what the platform signed, keeps it over restarts, and leaves the last good record where another comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from edge_agent.journal import Journal
from edge_agent.journal_file import Upkeep
from edge_agent.policy import PolicyTable
from edge_agent.policy_intake import POLICY_KNOWN, PolicyIntake
from streams.codec import decode_policy, encode_policy
from streams.generated import Policy, PolicyConfirmed, StreamTasks, TenantPolicy, TenantStanding, WantedPush
from streams.ids import OPERATOR_TENANT
from streams.ingress.credentials import issue
from streams.ingress.policy_news import Known, PolicyNews, Signed
from streams.policy_signing import Signer, public_key
from tests.edge_node import KEY, NOON_MS, STREAM, TENANT, stream_key, stream_policy
from tests.ingress import SECRET_KEY

SIGNER, FORGER = Signer(SECRET_KEY), Signer(bytes(32))
CREDENTIAL = issue(SECRET_KEY, "edge-1", None)
UPTO = Known(b"snapshot", (1, 2, 3))


def signed(policy: Policy, signer: Signer = SIGNER) -> Signed:
    value = encode_policy(policy)
    return Signed(value, signer.sign(value))


def snapshot(*records: Signed, complete: bool = True, secrets: tuple[tuple[UUID, bytes], ...] = ()) -> PolicyNews:
    known = UPTO if complete else None
    return PolicyNews(records, of_snapshot=True, is_complete=complete, known=known, secrets=secrets)


def confirmed(at_ms: int, signer: Signer = SIGNER) -> Signed:
    return signed(PolicyConfirmed(OPERATOR_TENANT, 1, datetime.fromtimestamp(at_ms / 1000, UTC)), signer)


def confirming(at_ms: int) -> PolicyNews:
    return PolicyNews(known=UPTO, confirmed=confirmed(at_ms))


class NodeUnderTest:
    """A table, an intake and a journal in a directory; `restart` leaves only what is on the disk."""

    def __init__(self, directory: Path, credential: str = CREDENTIAL) -> None:
        self._file, self.credential = directory / "journal.db", credential
        self.open()

    def open(self) -> None:
        self.journal = Journal(self._file)
        self.journal.open()
        known = self.journal.known()
        self.table = PolicyTable(map(decode_policy, self.journal.policies()), is_known=POLICY_KNOWN in known)
        self.table.secrets.update(self.journal.secrets())
        self.intake = PolicyIntake(self.journal, self.table, lambda: self.credential, known)

    async def restart(self) -> None:
        assert await self.journal.kept(Upkeep())
        self.journal.close()
        self.open()

    async def take(self, *news: PolicyNews, now_ms: int = NOON_MS) -> Known | None:
        """Over a new connection; what the node says that it knows when it is made."""
        known = self.intake.begins()
        for each in news:
            await self.intake.take(each, now_ms)
        return known


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeUnderTest]:
    node = NodeUnderTest(tmp_path)
    yield node
    node.journal.close()


async def test_a_snapshot_in_parts_counts_when_it_is_complete(node: NodeUnderTest) -> None:
    other = stream_policy(stream_key("sk_x"), stream_id=uuid4(), name="other")
    assert await node.take(snapshot(signed(stream_policy()), complete=False)) is None
    assert not node.table.is_known
    assert node.table.verdict(KEY, NOON_MS).refusal is None  # what came is good already
    assert await node.take(snapshot(signed(other), complete=False), snapshot()) is None
    assert node.table.is_known
    assert await node.take() == UPTO
    assert node.table.stream(other.stream_id) == other
    assert node.table.stream(STREAM) is None  # of the first connection's, which broke off


async def test_a_snapshot_is_on_the_disk_when_the_node_says_that_it_knows_it(node: NodeUnderTest) -> None:
    await node.take(snapshot(signed(stream_policy())))
    assert node.table.is_known
    assert POLICY_KNOWN in node.journal.known()  # what a kill at this moment leaves


async def test_what_is_known_survives_a_restart_with_where_to_go_on(node: NodeUnderTest) -> None:
    await node.take(replace(snapshot(signed(stream_policy()), secrets=((TENANT, b"secret"),)), confirmed=confirmed(NOON_MS)))
    await node.restart()
    assert node.table.is_known
    assert node.table.verdict(KEY, NOON_MS).refusal is None
    assert node.table.secret(TENANT) == b"secret"
    assert node.table.heard_ms == NOON_MS
    later = Known(b"snapshot", (1, 2, 9))
    changed = replace(stream_policy(), disabled=True)
    assert await node.take(PolicyNews((signed(changed),), known=later)) == UPTO
    await node.restart()
    assert await node.take() == later
    assert node.table.stream(STREAM) == changed


async def test_a_forged_record_is_counted_and_the_last_good_one_stays(node: NodeUnderTest) -> None:
    good, evil = stream_policy(), stream_policy(stream_key("sk_evil"))
    await node.take(snapshot(signed(good)))
    damaged = signed(good)
    for n, forged in enumerate(
        [signed(evil, FORGER), Signed(encode_policy(evil), damaged.signature), Signed(b"noise", b""), Signed(damaged.value, b"")],
        1,
    ):
        await node.take(PolicyNews((forged,), known=UPTO))
        assert node.intake.refused_total == n
        assert node.table.stream(STREAM) == good
    await node.take(snapshot(signed(evil, FORGER)))  # also where a snapshot has nothing better
    assert node.table.stream(STREAM) == good
    await node.restart()
    assert node.table.stream(STREAM) == good


async def test_a_credential_without_a_key_keeps_the_one_of_the_first_contact(node: NodeUnderTest) -> None:
    node.credential = "an old one"
    await node.take(replace(snapshot(signed(stream_policy())), public_key=public_key(SECRET_KEY)))
    assert node.table.stream(STREAM) == stream_policy()
    await node.restart()
    evil = stream_policy(stream_key("sk_evil"))
    await node.take(replace(PolicyNews((signed(evil, FORGER),), known=UPTO), public_key=FORGER.public_key))
    assert node.table.stream(STREAM) == stream_policy()
    assert node.intake.refused_total == 1


async def test_the_key_of_the_credential_counts_before_what_the_platform_says(node: NodeUnderTest) -> None:
    await node.take(replace(snapshot(signed(stream_policy(), FORGER)), public_key=FORGER.public_key))
    assert node.table.stream(STREAM) is None
    assert node.intake.refused_total == 1


async def test_without_any_key_nothing_is_believed(node: NodeUnderTest) -> None:
    node.credential = ""
    await node.take(snapshot(signed(stream_policy())))
    assert len(node.table) == 0


async def test_secrets_go_with_what_they_are_for(node: NodeUnderTest) -> None:
    one, two = uuid4(), uuid4()
    tasks = StreamTasks(TENANT, STREAM, "lobby", 1, (WantedPush(uuid4(), one, b"1"), WantedPush(uuid4(), two, b"2")))
    tenant = TenantPolicy(TENANT, 1, TenantStanding.ACTIVE)
    secrets = ((one, b"rtmp://one"), (two, b"rtmp://two"), (TENANT, b"webhook"))
    await node.take(snapshot(signed(tasks), signed(tenant), secrets=secrets))
    assert node.table.secret(two) == b"rtmp://two"
    fewer = replace(tasks, version=2, pushes=tasks.pushes[:1])
    await node.take(PolicyNews((signed(fewer),), known=UPTO, secrets=((one, b"rtmp://new"),)))
    await node.restart()
    assert [node.table.secret(i) for i in (one, two, TENANT)] == [b"rtmp://new", None, b"webhook"]
    await node.take(snapshot(signed(tenant), secrets=((TENANT, b"webhook"),)))
    await node.restart()
    assert node.table.secrets == {TENANT: b"webhook"}


async def test_keys_that_the_platform_no_longer_names_stay_known_as_over(node: NodeUnderTest) -> None:
    await node.take(snapshot(signed(stream_policy())))
    await node.take(PolicyNews((signed(stream_policy(stream_key("sk_new"))),), known=UPTO))
    for _ in range(2):
        verdict = node.table.verdict(KEY, NOON_MS)
        assert verdict.refusal is not None
        assert verdict.refusal.value == "KEY_EXPIRED"
        await node.restart()


async def test_it_is_written_down_now_and_then_that_the_policy_was_confirmed(node: NodeUnderTest) -> None:
    await node.take(replace(snapshot(), confirmed=confirmed(NOON_MS)))
    await node.take(confirming(NOON_MS + 1000), now_ms=NOON_MS + 1000)
    assert node.table.heard_ms == NOON_MS + 1000
    assert not node.table.is_stale(NOON_MS + 86_400_000)
    assert node.table.is_stale(NOON_MS + 86_402_000)
    await node.restart()
    assert node.table.heard_ms == NOON_MS  # at most a minute too little
    await node.take(confirming(NOON_MS + 61_000), now_ms=NOON_MS + 61_000)
    await node.restart()
    assert node.table.heard_ms == NOON_MS + 61_000


async def test_that_the_ingress_lives_does_not_make_the_policy_current(node: NodeUnderTest) -> None:
    await node.take(replace(snapshot(), confirmed=confirmed(NOON_MS)))
    await node.take(PolicyNews(known=UPTO), now_ms=NOON_MS + 90_000_000)
    assert node.table.heard_ms == NOON_MS
    assert node.table.is_stale(NOON_MS + 90_000_000)


async def test_a_confirmation_of_before_the_connection_is_as_old_as_it_says(node: NodeUnderTest) -> None:
    """Its writer may have stood still since. Of one that comes later, its coming counts, whatever the clocks."""
    day_ms = 86_400_000
    await node.take(replace(snapshot(), confirmed=confirmed(NOON_MS - 2 * day_ms)))
    assert node.table.is_stale(NOON_MS)
    await node.take(confirming(NOON_MS - 2 * day_ms), confirming(NOON_MS - 2 * day_ms + 10_000))  # our clock runs ahead
    assert node.table.heard_ms == NOON_MS
    await node.take(confirming(NOON_MS + 2 * day_ms))  # our clock runs behind: not current from tomorrow on
    assert node.table.heard_ms == NOON_MS


async def test_a_forged_confirmation_confirms_nothing(node: NodeUnderTest) -> None:
    await node.take(replace(snapshot(), confirmed=confirmed(NOON_MS)))
    other = signed(TenantPolicy(TENANT, 1, TenantStanding.ACTIVE))
    later = confirmed(NOON_MS + 1000, FORGER)
    for forged in (later, Signed(b"noise", b""), Signed(later.value, other.signature), other):
        await node.take(PolicyNews(known=UPTO, confirmed=forged), now_ms=NOON_MS + 1000)
        assert node.table.heard_ms == NOON_MS
    assert node.intake.refused_total == 3


async def test_others_get_their_turn_while_many_records_are_taken(node: NodeUnderTest) -> None:
    records = [signed(stream_policy(stream_key(f"sk_{n}"), stream_id=uuid4(), name=f"s{n}")) for n in range(400)]
    turns, is_done = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not is_done.is_set():
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    began = time.process_time()
    await node.take(snapshot(*records))
    busy_seconds = time.process_time() - began
    is_done.set()
    await waiting
    assert len(node.table) == 400
    assert turns > busy_seconds / 0.01  # a slice is a millisecond; ten of them would still be no stop
