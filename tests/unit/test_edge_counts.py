"""What comes too often is counted, said once a window, and nothing of it is lost but by a crash."""

from __future__ import annotations

from streams.generated import BandwidthMeasured, ConnectionsCounted, StreamNotFound, TriggerInvalid
from tests.edge_node import STREAM, AgentUnderTest

LOBBY = "live+lobby\n203.0.113.9\nHLS\n"


def test_connections_make_one_fact_a_window_however_many_there_are() -> None:
    agent = AgentUnderTest()
    for n in range(500):
        agent.send("CONN_OPEN", "\n203.0.113.9\nHTTP\n", pid=n, after_ms=1)
        agent.send("CONN_OPEN", LOBBY, pid=n, after_ms=1)
        agent.send("CONN_PLAY", LOBBY, pid=n, after_ms=1)
        agent.send("CONN_CLOSE", f"{LOBBY}http://h/x?tkn=secret", pid=n, after_ms=1)
    agent.send("CONN_STOP", LOBBY)
    assert agent.said() == []
    assert agent.agent.counted(agent.now_ms) == ()
    [(fact, meta)] = agent.agent.counted(agent.now_ms + 60_000)
    assert isinstance(fact, ConnectionsCounted)
    assert fact.connectors == ("HLS", "HTTP")
    assert (fact.opened, fact.closed, fact.played, fact.stopped) == ((500, 500), (500, 0), (500, 0), (1, 0))
    assert meta.actor == "node:edge-1"
    assert agent.agent.counted(agent.now_ms + 120_000) == ()  # nothing came since


def test_at_the_end_what_was_counted_is_said() -> None:
    agent = AgentUnderTest()
    agent.send("CONN_PLAY", LOBBY)
    [(fact, _)] = agent.agent.counted(agent.now_ms + 7000, at_once=True)
    assert isinstance(fact, ConnectionsCounted)
    assert fact.window_seconds == 7


def test_a_clock_that_was_set_back_ends_the_window() -> None:
    agent = AgentUnderTest()
    agent.send("CONN_PLAY", LOBBY)
    [(fact, _)] = agent.agent.counted(agent.now_ms - 3_600_000)
    assert isinstance(fact, ConnectionsCounted)
    assert fact.window_seconds == 0


def test_bandwidth_is_said_every_ten_seconds_also_over_a_kill() -> None:
    agent = AgentUnderTest()
    for n in range(100):
        agent.send("LIVE_BANDWIDTH", f"live+lobby\n{n}", after_ms=500)
        agent.restart()
    agent.send("LIVE_BANDWIDTH", "copy\n1")
    rates = [fact.bytes_per_second for fact in agent.said() if isinstance(fact, BandwidthMeasured)]
    assert rates == [0, 20, 40, 60, 80]


def test_a_player_that_polls_a_dead_stream_makes_a_fact_a_minute() -> None:
    agent = AgentUnderTest()
    for n in range(150):
        name = "live+lobby" if n % 2 else f"mistyped-key-{n}"
        assert agent.send("DEFAULT_STREAM", f"\n{name}\n203.0.113.9\nHLS\nhttp://h/x", after_ms=1000) == ""
    found = [(f, m) for f, m in agent.facts if isinstance(f, StreamNotFound)]
    assert [(f.internal_name, f.requests, m.aggregate_id == STREAM) for f, m in found] == [
        (None, 1, False),
        ("lobby", 1, True),
        (None, 30, False),
        ("lobby", 30, True),
        (None, 30, False),
        ("lobby", 30, True),
    ]
    late = agent.agent.counted(agent.now_ms + 60_000)
    assert [(f.internal_name, f.requests) for f, _ in late if isinstance(f, StreamNotFound)] == [(None, 14), ("lobby", 14)]
    assert agent.agent.counted(agent.now_ms + 180_000) == ()
    assert len({m.event_id for _, m in (*found, *late)}) == 8


def test_a_flood_of_unreadable_bodies_is_kept_in_part_and_counted() -> None:
    agent = AgentUnderTest()
    for _ in range(250):
        agent.send("CONN_OPEN", "live+cam1\nx\n127.0.9.3\nHTTPTS\nhttp://h", after_ms=1)
    agent.send("USER_END", "1\n2")  # another trigger is not held back by it
    kept = [fact for fact in agent.said() if isinstance(fact, TriggerInvalid)]
    assert [fact.unkept for fact in kept] == 101 * [0]
    agent.send("CONN_OPEN", "x", after_ms=60_000)
    [*_, last] = agent.said(TriggerInvalid)
    assert isinstance(last, TriggerInvalid)
    assert last.unkept == 150


def test_a_newline_typed_into_a_url_does_not_keep_a_refusal_alive() -> None:
    """CONN_CLOSE of a hostile publisher has more lines than it should; its process is gone all the same."""
    agent = AgentUnderTest()
    agent.send("PUSH_REWRITE", "rtmp://h/live/k\ninjected\n203.0.113.9\nk", pid=7)
    assert list(agent.agent.state.refusals.items())
    agent.send("CONN_CLOSE", "k\ninjected\n203.0.113.9\nRTMP\nrtmp://h/live/k\ninjected", pid=7)
    assert not list(agent.agent.state.refusals.items())
