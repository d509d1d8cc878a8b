"""The journal's byte budget: samples go first, then changes; ends, totals and admissions never; and what went is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from edge_agent.agent import Agent
from edge_agent.journal import CARRIED_BYTES, Journal
from edge_agent.journal_budget import AT_ONCE, CHANGE, CHANGES, FINAL, SAMPLE, SAMPLES, priority_of
from edge_agent.journal_file import Answer, TriggerRows, Upkeep
from edge_agent.node_state import NodeState
from edge_agent.policy import PolicyTable
from edge_agent.service import Service
from edge_agent.turn import Node
from edge_agent.uplink import Uplink
from streams.codec import decode, encode, name_of
from streams.generated import BandwidthMeasured, BufferChanged, BufferState, Fact, FactsDropped, StreamWentLive
from streams.ids import OPERATOR_TENANT
from streams.registry import by_name
from tests.ingress import meta

TENANT, STREAM = uuid4(), uuid4()
SAMPLE_FACT, CHANGE_FACT = BandwidthMeasured("edge-1", 1), BufferChanged("edge-1", BufferState.FULL)
FINAL_FACT = StreamWentLive("edge-1", "lobby")


def framed(fact: Fact) -> bytes:
    return encode(fact, meta(TENANT, STREAM))


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path / "journal.db", budget_bytes=100_000)
    journal.open()
    yield journal
    journal.close()


async def say(journal: Journal, *facts: bytes, at_ms: int = 1) -> bool:
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    rows = TriggerRows(tuple((value, None) for value in facts), (), Answer(uuid4().bytes, "true", at_ms), future.set_result)
    journal.write(rows)
    return await asyncio.wait_for(future, 180)


def waiting(journal: Journal) -> list[str]:
    """Records that wait; looked at without being handed to anybody."""
    return [name_of(value) for (value,) in journal._read("SELECT value FROM journal ORDER BY seq")]


def test_what_nobody_named_is_kept_to_the_last() -> None:
    assert [priority_of(framed(fact)) for fact in (SAMPLE_FACT, CHANGE_FACT, FINAL_FACT)] == [SAMPLE, CHANGE, FINAL]
    assert priority_of(b"not a fact") == FINAL
    assert by_name().keys() >= SAMPLES | CHANGES
    final = {"IngestStarted", "IngestEnded", "IngestRejected", "ViewerJoined", "ViewerLeft", "ViewerRejected", "StreamTotals"}
    assert not final & (SAMPLES | CHANGES)


async def test_samples_go_first_then_changes_and_the_rest_stays(journal: Journal) -> None:
    size = len(framed(FINAL_FACT))
    journal.budget_bytes = 70_000
    for n in range(200):
        await say(journal, framed(FINAL_FACT), framed(CHANGE_FACT), framed(SAMPLE_FACT), at_ms=1000 + n)
    left = waiting(journal)
    assert left.count("StreamWentLive") == 200
    assert left.count("BandwidthMeasured") <= 1  # they went before the first change did; the newest may have come since
    assert 0 < left.count("BufferChanged") < 200
    assert journal.depth.size_bytes <= 70_000
    assert journal.depth.rows == len(left)
    assert journal.dropped_total == 600 - len(left)
    dropped = {d.record: d.rows for d in journal.dropped()}
    assert dropped == {name: 200 - left.count(name) for name in ("BandwidthMeasured", "BufferChanged")}
    for n in range(200, 2 * 100_000 // size):
        await say(journal, framed(FINAL_FACT), at_ms=1000 + n)
    assert set(waiting(journal)) == {"StreamWentLive"}
    assert journal.is_over_budget
    assert journal.depth.rows == 2 * 100_000 // size


async def test_the_oldest_of_a_kind_goes_first(journal: Journal) -> None:
    for n in range(2000):
        await say(journal, encode(BandwidthMeasured("edge-1", n), meta(TENANT, STREAM)), at_ms=n)
    kept = [getattr(decode(entry.value)[0], "bytes_per_second") for entry in journal.after(0, 1 << 20, 1 << 30, 0)]  # noqa: B009
    assert kept == list(range(kept[0], 2000))
    [dropped] = journal.dropped()
    assert (dropped.rows, dropped.from_ms, dropped.until_ms) == (kept[0], 0, kept[0] - 1)


async def test_what_is_on_its_way_is_not_given_up(journal: Journal) -> None:
    for _ in range(100):
        await say(journal, framed(SAMPLE_FACT))
    handed = journal.after(0, 50, 1 << 30, 0)
    for _ in range(600):
        await say(journal, framed(FINAL_FACT))
    left = journal.after(0, 1 << 20, 1 << 30, 0)
    assert [entry.seq for entry in left[:50]] == [entry.seq for entry in handed]
    assert sum(d.rows for d in journal.dropped()) == 50


async def test_a_backlog_of_samples_is_given_up_in_steps(tmp_path: Path) -> None:
    """As when the budget was made smaller: no trigger waits for all of it."""
    journal = Journal(tmp_path / "journal.db")
    journal.open()
    await say(journal, *(framed(SAMPLE_FACT) for _ in range(3 * AT_ONCE)))
    journal.close()
    journal = Journal(tmp_path / "journal.db", budget_bytes=1 << 20)
    journal.open()
    assert journal.depth.rows == 3 * AT_ONCE
    before = journal.depth
    journal.budget_bytes = 1000
    steps = [journal.depth.rows]
    while journal.depth.rows > 10:
        await say(journal, framed(FINAL_FACT))
        steps.append(journal.depth.rows)
    assert min(b - a for a, b in pairwise(steps)) >= -AT_ONCE
    assert len(steps) == 4
    assert before.rows - sum(d.rows for d in journal.dropped()) < 5
    journal.close()


def service(journal: Journal) -> Service:
    agent = Agent(Node.called("edge-1", OPERATOR_TENANT), PolicyTable(is_known=True), NodeState(), lambda _: None)
    return Service(agent, journal, Uplink(journal, agent.policy, "127.0.0.1:1", lambda: ""), is_traced=False)


async def test_what_was_given_up_is_said_once_there_is_room(journal: Journal) -> None:
    one = service(journal)
    for n in range(1000):
        await say(journal, framed(SAMPLE_FACT), at_ms=5000 + n)
    dropped = sum(d.rows for d in journal.dropped())
    assert dropped > 0
    assert journal.is_giving_up
    assert "byte budget" in str(one.readiness()[1]["warnings"])
    assert one.readiness()[0]  # triggers are answered all the same
    assert {name: value for name, _, value in one.totals()}["fw_edge_journal_dropped_facts"] == dropped
    await journal.kept(Upkeep(forget_through=journal.after(0, 1 << 20, 1 << 30, 0)[-1].seq))
    assert not journal.is_giving_up
    tidy = asyncio.create_task(one.keep_tidy())
    async with asyncio.timeout(180):
        while journal.dropped():
            await asyncio.sleep(0.05)
    tidy.cancel()
    [entry] = journal.after(0, 10, 1 << 30, 0)
    fact, about = decode(entry.value)
    assert isinstance(fact, FactsDropped)
    assert (fact.record_names, fact.counts) == (("BandwidthMeasured",), (dropped,))
    assert fact.sizes_bytes[0] == dropped * len(framed(SAMPLE_FACT))
    assert about.tenant_id == OPERATOR_TENANT
    assert priority_of(entry.value) == FINAL


async def test_a_disk_that_refuses_makes_memory_give_up_samples_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.open()
    [(pages,)] = journal._connection.execute("PRAGMA page_count")
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = [encode(BufferChanged("edge-1", BufferState.FULL, issues="x" * (1 << 20)), meta(TENANT, STREAM)) for _ in range(4)]
    for n in range(48):
        await say(journal, large[n % 4], framed(SAMPLE_FACT), framed(FINAL_FACT))
    assert journal.lost_total > 0
    journal._connection.execute("PRAGMA max_page_count = 1000000000")
    assert await say(journal, framed(FINAL_FACT))
    left = waiting(journal)
    assert left.count("StreamWentLive") == 49
    assert left.count("BandwidthMeasured") < 48
    assert sum(len(entry.value) for entry in journal.after(0, 1 << 20, 1 << 40, 0)) <= CARRIED_BYTES + (1 << 20)
    journal.close()


async def test_a_clock_that_jumps_keeps_facts_and_forgets_answers(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.open()
    day, now = 86_400_000, 1_795_262_400_000
    for at in (now, now + 365 * day, now + 1, now + 2):  # a year ahead, and back
        await say(journal, framed(FINAL_FACT), at_ms=at)
    assert len(journal.after(0, 10, 1 << 30, 0)) == 4
    await journal.kept(Upkeep(answers_before_ms=now + 1))
    assert [at for _, _, at in journal.answers(0)] == [now + 1, now + 2]  # that of next year holds up no other
    await journal.kept(
        Upkeep(answers_before_ms=now + 1 - day)
    )  # set back a day: what is young in that time stays or goes, no error
    await say(journal, framed(FINAL_FACT), at_ms=now - day)
    await journal.kept(Upkeep(answers_before_ms=now + day))
    assert journal.answers(0) == []
    assert [entry.seq for entry in journal.after(0, 10, 1 << 30, 0)] == [1, 2, 3, 4, 5]
    journal.close()


async def test_a_file_of_an_older_agent_is_taken_over(tmp_path: Path) -> None:
    import sqlite3

    file = tmp_path / "journal.db"
    with sqlite3.connect(file) as old:
        old.executescript(
            """
            CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL, traceparent TEXT,
                at_ms INTEGER NOT NULL);
            CREATE TABLE quarantine (seq INTEGER PRIMARY KEY, value BLOB NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
                at_ms INTEGER NOT NULL);
            CREATE TABLE answers (identity BLOB PRIMARY KEY, answer TEXT NOT NULL, at_ms INTEGER NOT NULL);
            CREATE INDEX answers_by_time ON answers (at_ms);
            CREATE TABLE state (shelf TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (shelf, key));
            INSERT INTO answers VALUES (x'01', 'true', 5);
            INSERT INTO state VALUES ('pushes', 'b', x'31'), ('pushes', 'a', x'32');
            """
        )
        old.execute("INSERT INTO journal (value, at_ms) VALUES (?, 7)", (framed(SAMPLE_FACT),))
    old.close()
    journal = Journal(file, budget_bytes=10)
    journal.open()
    assert [key for _, key, _ in journal.state()] == ["b", "a"]
    assert journal.answers(0) == [(b"\x01", "true", 5)]
    await say(journal, framed(FINAL_FACT))
    assert waiting(journal) == ["BandwidthMeasured", "StreamWentLive"]  # nobody knew its kind then: it is kept
    journal.close()
