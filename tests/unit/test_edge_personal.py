"""Personal data at the edge: whose key seals it, and that it is nowhere in the clear."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import jwt
import pytest

from edge_agent.node_state import NodeState
from edge_agent.personal import KEY_SECONDS, Sealer, subject_of_token
from streams.codec import encode
from streams.generated import IngestRejected, IngestStarted, PersonalKind, TriggerInvalid, ViewerJoined, ViewerRejected
from streams.ids import OPERATOR_TENANT, new_id
from streams.privacy.envelope import DayKeys, public_key
from streams.privacy.people import Person
from streams.privacy.sealing import key_id_of
from tests.edge_node import DAY_KEYS, INTAKE, KEY, NOON_MS, SESSION, TENANT, TODAY, AgentUnderTest

ADDRESS = "203.0.113.77"
ALICE = Person(TENANT, PersonalKind.VIEWER, "alice@example.org")


def token(subject: object) -> str:
    return jwt.encode({"sub": subject}, "k" * 32, "HS256")


def join(agent: AgentUnderTest, *, line: str = "random", url: str = "http://h/x", stream: str = "live+lobby") -> ViewerJoined:
    agent.send("USER_NEW", f"{stream}\n{ADDRESS}\n{line}\nHLS\n{url}\n{SESSION}\nfalse")
    fact = agent.said()[-1]
    assert isinstance(fact, ViewerJoined)
    return fact


def test_a_viewer_whom_the_tenant_names_has_a_key_of_their_own() -> None:
    agent = AgentUnderTest()
    fact = join(agent, line=token("alice@example.org"))
    assert agent.opened(fact, "address") == (ADDRESS.encode(), ALICE)
    assert agent.opened(fact, "subject") == (b"alice@example.org", ALICE)
    bob = join(agent, url=f"http://h/x?jwt={token('bob')}")
    assert agent.opened(bob, "address")[1].subject == "bob"
    assert bob.address is not None
    assert fact.address is not None
    assert key_id_of(bob.address) != key_id_of(fact.address)


def test_anonymous_viewers_of_a_day_share_a_key() -> None:
    agent = AgentUnderTest()
    one, two = join(agent), join(agent)
    assert one.subject is None
    assert agent.opened(one, "address") == (ADDRESS.encode(), Person(TENANT, PersonalKind.VIEWER_DAY, day=TODAY))
    assert one.address is not None
    assert two.address is not None
    assert key_id_of(one.address) == key_id_of(two.address)
    assert one.address != two.address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "random",
        "a.b.c",
        "é.é.é",
        token("live+lobby"),  # the media server's own tokens name the stream
        token("lobby"),
        token("pblobby"),
        token("live+*"),
        jwt.encode({"name": "x"}, "k" * 32, "HS256"),
        token("x" * 2000),
    ],
)
def test_a_token_that_names_nobody_makes_nobody(text: str) -> None:
    fact = join(AgentUnderTest(), line=text, url=f"http://h/x?tkn={text}")
    assert fact.subject is None


def test_a_name_need_not_be_proven_to_choose_a_key() -> None:
    header, claims, _ = token("alice").split(".")
    assert subject_of_token(f"{header}.{claims}.forged", "", frozenset()) == "alice"
    assert subject_of_token("", f"http://h/x?a=b&token={token('alice')}", frozenset()) == "alice"
    both = jwt.encode({"sub": "pblobby", "viewer": "alice"}, "k" * 32, "HS256")
    assert subject_of_token(both, "", frozenset({"pblobby"})) == "alice"


def test_whose_key_seals_what_else_is_personal() -> None:
    agent = AgentUnderTest()
    agent.send("USER_NEW", f"live+nothing\n{ADDRESS}\nt\nHLS\nhttp://h/x\n{SESSION}\nfalse")
    agent.send("PUSH_REWRITE", f"rtmp://h/live/{KEY}\n{ADDRESS}\n{KEY}", pid=1)
    agent.send("STREAM_PUSH", f"live+lobby\n{ADDRESS}\nRTMP\nrtmp://h/live/{KEY}", pid=1)
    agent.send("PUSH_REWRITE", f"rtmp://h/live/wrong\n{ADDRESS}\nwrong", pid=2)
    agent.send("STREAM_BUFFER", f"{ADDRESS} wrote this")
    rejected, started, refused, invalid = agent.said()
    assert isinstance(rejected, ViewerRejected)
    assert isinstance(started, IngestStarted)
    assert isinstance(refused, IngestRejected)
    assert isinstance(invalid, TriggerInvalid)
    publishers = PersonalKind.PUBLISHER_DAY
    assert agent.opened(rejected, "address") == (ADDRESS.encode(), Person(OPERATOR_TENANT, PersonalKind.VIEWER_DAY, day=TODAY))
    assert agent.opened(started, "address") == (ADDRESS.encode(), Person(TENANT, publishers, day=TODAY))
    assert agent.opened(refused, "address") == (ADDRESS.encode(), Person(OPERATOR_TENANT, publishers, day=TODAY))
    body, person = agent.opened(invalid, "sealed_body")
    assert (body, person) == (f"{ADDRESS} wrote this".encode(), Person(OPERATOR_TENANT, PersonalKind.NODE_DAY, day=TODAY))
    assert invalid.body == b""


def test_nothing_of_it_is_on_disk_in_the_clear() -> None:
    """Facts, shelves and envelopes are all that a journal writes of a trigger, besides what it was answered."""
    agent = AgentUnderTest()
    join(agent, line=token("alice@example.org"))
    agent.send("PUSH_REWRITE", f"rtmp://h/live/{KEY}\n{ADDRESS}\n{KEY}", pid=1)
    agent.send("STREAM_PUSH", f"live+lobby\n{ADDRESS}\nRTMP\nrtmp://h/live/{KEY}", pid=1)
    agent.send("STREAM_BUFFER", f"{ADDRESS} alice@example.org wrote this")
    written = b"".join(encode(*said) for said in agent.facts) + b"".join(agent.rows.values())
    assert b"lobby" in written
    assert ADDRESS.encode() not in written
    assert b"alice" not in written
    assert not [g for g in agent.grants().values() if g.key in written or g.key.hex().encode() in written]


def test_without_keys_of_the_platform_it_is_dropped_and_the_fact_is_not() -> None:
    state = NodeState()
    sealer = Sealer(state)
    assert sealer.seal(ALICE, b"x", event_id=new_id(), field="address", now_ms=NOON_MS) is None
    assert sealer.dropped_total == 1
    assert sealer.viewer_day(TENANT, "x", NOON_MS) is None
    assert not len(state.envelopes)


def key_of(sealer: Sealer, now_ms: int, person: Person = ALICE) -> UUID:
    sealed = sealer.seal(person, b"x", event_id=new_id(), field="address", now_ms=now_ms)
    assert sealed is not None
    return key_id_of(sealed)


def test_a_key_is_used_for_some_minutes_so_that_who_was_erased_gets_a_new_one() -> None:
    sealer = Sealer(NodeState(), [DAY_KEYS])
    first = key_of(sealer, NOON_MS)
    assert key_of(sealer, NOON_MS + 1000 * KEY_SECONDS - 1) == first
    assert key_of(sealer, NOON_MS + 1000 * KEY_SECONDS) != first


def test_a_restart_makes_new_keys_and_keeps_the_envelopes_of_the_old() -> None:
    agent = AgentUnderTest()
    before = join(agent)
    agent.restart()
    after = join(agent)
    assert before.address is not None
    assert after.address is not None
    assert key_id_of(before.address) != key_id_of(after.address)
    assert agent.opened(before, "address")[0] == agent.opened(after, "address")[0]


async def test_an_envelope_waits_until_the_platform_has_it() -> None:
    state = NodeState()
    sealer = Sealer(state, [DAY_KEYS])
    key_of(sealer, NOON_MS)
    state.changes.take()
    waiting = await sealer.waiting(10)
    assert await sealer.waiting(10) == waiting
    [change] = sealer.handed_over(waiting)
    assert (change.shelf, change.key, change.value) == ("envelopes", str(waiting[0].key_id), None)
    assert not len(state.envelopes)


def days(*offsets: int) -> list[DayKeys]:
    return [DayKeys(TODAY + timedelta(days=n), public_key(INTAKE), bytes([n % 256]) * 32) for n in offsets]


def test_an_edge_that_is_cut_off_seals_to_the_newest_day_it_has() -> None:
    state = NodeState()
    sealer = Sealer(state, days(-3, -2))
    key_of(sealer, NOON_MS)
    assert [e.day for e in state.envelopes] == [TODAY - timedelta(days=2)]
    assert sealer.viewer_day(TENANT, "x", NOON_MS) is None  # a pseudonym of another day would not be one


def test_what_is_published_for_the_days_ahead_is_used_on_its_day() -> None:
    state = NodeState()
    sealer = Sealer(state, days(0, 1, 2))
    key_of(sealer, NOON_MS)
    key_of(sealer, NOON_MS + 24 * 3_600_000)
    assert [e.day for e in state.envelopes] == [TODAY, TODAY + timedelta(days=1)]


def test_days_that_are_over_are_forgotten() -> None:
    sealer = Sealer(NodeState(), days(-3, -2, -1, 0))
    assert sealer.learn(days(0, 1), NOON_MS) == tuple(days(-1, 0, 1))
    assert sealer.learn(days(0, 1), NOON_MS) is None
