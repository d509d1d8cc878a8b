"""The journal: durable before it is promised, whole after a kill, in order, and honest about a disk that refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from edge_agent.agent import Agent
from edge_agent.http import Request
from edge_agent.journal import Journal
from edge_agent.journal_budget import Growth
from edge_agent.journal_file import Answer, PolicyRow, TriggerRows, Upkeep
from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer
from edge_agent.policy import PolicyTable
from edge_agent.service import Service
from edge_agent.shelf import Change
from edge_agent.turn import Node
from edge_agent.uplink import Uplink
from streams.ids import OPERATOR_TENANT
from tests.edge_node import DAY_KEYS, stream_policy


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path / "journal.db")
    journal.open()
    yield journal
    journal.close()


async def written(journal: Journal, *facts: bytes, changes: tuple[Change, ...] = (), name: bytes = b"u") -> bool:
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    journal.write(TriggerRows(tuple((f, None) for f in facts), changes, Answer(name, "true", 1), future.set_result))
    return await asyncio.wait_for(future, 180)


def fill(journal: Journal, pages: int | None) -> None:
    """Lets the file grow no further (None: as far as it likes), as a full disk would."""
    [(now,)] = journal._connection.execute("PRAGMA page_count")
    journal._connection.execute(f"PRAGMA max_page_count = {now + pages if pages is not None else 1 << 30}")


async def test_another_reader_sees_what_was_promised(journal: Journal) -> None:
    assert await written(journal, b"a", b"b", changes=(Change("viewings", "k", b"{}"),))
    with sqlite3.connect(journal.file) as other:
        assert other.execute("SELECT value FROM journal ORDER BY seq").fetchall() == [(b"a",), (b"b",)]
        assert other.execute("SELECT shelf, key FROM state").fetchall() == [("viewings", "k")]
        assert other.execute("SELECT answer FROM answers").fetchall() == [("true",)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert journal.file.stat().st_mode & 0o077 == 0


async def test_what_waits_shares_a_transaction(journal: Journal) -> None:
    assert all(await asyncio.gather(*(written(journal, b"%d" % n) for n in range(500))))
    assert journal.transactions_total < 100
    assert [entry.value for entry in journal.after(0, 1000, 1 << 20, 0)] == [b"%d" % n for n in range(500)]
    assert journal.depth == Growth(500, sum(len(b"%d" % n) for n in range(500)))


async def test_batches_are_bounded_but_never_empty(journal: Journal) -> None:
    await written(journal, b"x" * 100, b"y" * 100, b"z")
    assert [e.value[:1] for e in journal.after(0, 10, 50, 10)] == [b"x"]
    assert [e.value[:1] for e in journal.after(0, 10, 230, 10)] == [b"x", b"y"]
    assert [e.value[:1] for e in journal.after(0, 1, 9999, 10)] == [b"x"]


async def test_numbers_are_never_given_out_twice(journal: Journal, tmp_path: Path) -> None:
    await written(journal, b"a", b"b")
    assert await journal.kept(Upkeep(forget_through=2))
    assert journal.depth == Growth()
    await written(journal, b"c")
    [entry] = journal.after(0, 10, 1000, 0)
    assert entry.seq == 3


async def test_what_the_ingress_refused_is_kept_with_its_reason(journal: Journal) -> None:
    await written(journal, b"good", b"bad", b"waits")
    assert await journal.kept(Upkeep(forget_through=2, quarantined=((2, "FOREIGN_TENANT", "not yours"),)))
    assert journal.quarantine() == [(2, b"bad", "FOREIGN_TENANT", "not yours")]
    assert [entry.value for entry in journal.after(0, 10, 1000, 0)] == [b"waits"]


async def test_state_comes_back_in_the_order_in_which_it_began(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.open()
    for key in "cab":
        await written(journal, changes=(Change("pushes", key, b"1"),), name=key.encode())
    await written(journal, changes=(Change("pushes", "c", b"2"), Change("pushes", "a", None)))
    journal.close()
    again = Journal(tmp_path / "journal.db")
    again.open()
    assert again.state() == [("pushes", "c", b"2"), ("pushes", "b", b"1")]
    assert [answer for answer, *_ in again.answers(0)] == [b"c", b"a", b"b", b"u"]
    again.close()


async def test_a_disk_that_refuses_is_told_and_nothing_is_lost_when_it_takes_again(journal: Journal) -> None:
    assert await written(journal, b"before")
    fill(journal, pages=0)
    assert not await written(journal, b"x" * 100_000)
    assert not await written(journal, b"y" * 100_000, changes=(Change("viewings", "k", b"{}"),))
    assert journal.problem is not None
    assert "full" in journal.problem
    fill(journal, pages=None)
    assert await written(journal, b"after")
    assert journal.problem is None
    assert [entry.value[:1] for entry in journal.after(0, 10, 1 << 30, 0)] == [b"b", b"x", b"y", b"a"]
    assert journal.state() == [("viewings", "k", b"{}")]
    assert journal.depth.rows == 4


async def test_it_tries_again_by_itself(journal: Journal) -> None:
    fill(journal, pages=0)
    assert not await written(journal, b"x" * 100_000)
    fill(journal, pages=None)
    async with asyncio.timeout(180):
        await journal.grown.wait()
    assert journal.problem is None
    assert len(journal.after(0, 10, 1 << 30, 0)) == 1


class Caller:
    """Posts to a service without a door, and keeps the answers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def post(self, name: str, body: bytes, uuid: str) -> tuple[int, bytes]:
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        headers = {b"x-trigger-uuid": uuid.encode(), b"x-pid": b"7", b"x-instance": b"I"}
        self._service.answer(
            Request(b"POST", f"/trigger/{name}", headers, body), lambda status, said: future.set_result((status, said))
        )
        return await asyncio.wait_for(future, 180)


async def test_while_the_disk_refuses_viewers_are_let_in_and_the_rest_is_told_to_wait(journal: Journal) -> None:
    state, node = NodeState(), Node.called("edge-1", OPERATOR_TENANT)
    policy = PolicyTable([stream_policy()], is_known=True)
    agent = Agent(node, policy, state, lambda _: None, Sealer(state, [DAY_KEYS]))
    service = Service(agent, journal, Uplink(journal, agent.policy, "127.0.0.1:1", lambda: ""), is_traced=False)
    caller = Caller(service)
    fill(journal, pages=0)
    session = "a" * 64
    join = f"live+lobby\n127.0.1.1\n1\nHLS\n\n{session}\nfalse".encode()
    left = f"1\nlive+lobby\nHLS\n127.0.1.1\n14\n1\n2\n\n14\n14\n14\n{session}".encode()
    big = b"live+lobby\nFULL\n" + b"x" * 900_000  # unreadable: kept whole, and that does not fit
    assert await caller.post("STREAM_BUFFER", big, "u0") == (503, b"the journal cannot be written")
    assert await caller.post("USER_NEW", join, "u1") == (200, b"true")
    assert await caller.post("USER_END", left, "u2") == (503, b"the journal cannot be written")
    is_ready, detail = service.readiness()
    assert not is_ready
    assert "cannot be written" in str(detail["problems"])
    gauges = {name: value for name, _, value in service.gauges()}
    assert gauges["fw_edge_journal_is_failing"] == 1
    fill(journal, pages=None)
    assert await caller.post("SYSTEM_STOP", b"signal", "u3") == (200, b"true")
    assert len(journal.after(0, 10, 1 << 30, 0)) == 4  # all that was said meanwhile is there, too
    assert service.readiness()[0]


async def test_a_retry_that_overtakes_the_fsync_waits_for_it(journal: Journal) -> None:
    agent = Agent(
        Node.called("edge-1", OPERATOR_TENANT), PolicyTable([stream_policy()], is_known=True), NodeState(), lambda _: None
    )
    service = Service(agent, journal, Uplink(journal, agent.policy, "127.0.0.1:1", lambda: ""), is_traced=False)
    caller = Caller(service)
    both = await asyncio.gather(caller.post("SYSTEM_START", b"3.10", "same"), caller.post("SYSTEM_START", b"3.10", "same"))
    assert tuple(both) == ((200, b"true"), (200, b"true"))
    assert journal.depth.rows == 1


async def test_policy_survives(journal: Journal) -> None:
    stream_id = UUID(int=7)
    row = PolicyRow(stream_id, b"p", b"signature")
    assert await journal.kept(Upkeep(policies=(row,), secrets=((stream_id, b"s"),), known=(("policy_is_known", "yes"),)))
    assert journal.policies() == [b"p"]
    assert journal.secrets() == {stream_id: b"s"}
    assert journal.known() == {"policy_is_known": "yes"}
    assert await journal.kept(Upkeep(policies=(PolicyRow(stream_id, b"q", b"signature", kept=b"q and more"),)))
    assert journal.policies() == [b"q and more"]
    assert await journal.kept(Upkeep(policies_gone=(stream_id,), secrets_gone=(stream_id,)))
    assert journal.policies() == []
    assert journal.secrets() == {}


async def test_a_file_of_an_older_agent_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with closing(sqlite3.connect(file)) as old:
        old.execute("CREATE TABLE policy (stream_id BLOB PRIMARY KEY, value BLOB NOT NULL)")
        old.execute("INSERT INTO policy VALUES (?, ?)", (UUID(int=7).bytes, b"p"))
        old.commit()
    for _ in range(2):
        journal = Journal(file)
        journal.open()
        assert journal.policies() == [b"p"]
        journal.close()
