"""Pushes and recordings: each start with its end, and the figures of the process's own last words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.generated import Policy, PushEnded, PushStarted, RecordingEnded, TenantStanding
from tests.edge_node import AgentUnderTest, stream_policy
from tests.playback import tenant_policy

TARGET = "rtmp://far.example.org/app/their-key"


def start(agent: AgentUnderTest, target: str = TARGET) -> None:
    assert agent.send("PUSH_OUT_START", f"live+lobby\n{target}", pid=1) == target


def last_words(agent: AgentUnderTest, pid: int, target: str = TARGET, sent: int = 1000, trigger: str = "OUTPUT_END") -> None:
    text = f"live+lobby\n{target}\nRTMP\n{sent}\n9\n1795176069\n1795176078\n9275\n6021\n15296\nCLEAN_EOF\nend of stream\n"
    agent.send(trigger, text, pid=pid)


def end(agent: AgentUnderTest, pid: int, target: str = TARGET, used: str | None = None, status: str = "null") -> None:
    agent.send("PUSH_END", f"{pid}\nlive+lobby\n{target}\n{used or target}\n[]\n{status}", pid=1)


def ended(agent: AgentUnderTest) -> list[PushEnded]:
    return [fact for fact in agent.said() if isinstance(fact, PushEnded)]


def test_the_figures_are_those_of_the_process_not_the_older_status() -> None:
    agent = AgentUnderTest()
    start(agent)
    last_words(agent, pid=5, sent=568324)
    end(agent, pid=5, status='{"bytes":224284,"active_seconds":4,"media_tx":4560}')
    [push] = ended(agent)
    assert (push.sent_bytes, push.seconds, push.media_ms, push.end_reason) == (568324, 9, 9275, "CLEAN_EOF")
    assert "their-key" not in repr(agent.said())


def test_a_killed_push_said_nothing_so_its_last_status_counts() -> None:
    agent = AgentUnderTest()
    start(agent)
    end(agent, pid=5, status='{"bytes":224284,"active_seconds":4,"media_tx":4560}')
    [push] = ended(agent)
    assert (push.sent_bytes, push.seconds, push.media_ms, push.end_reason) == (224284, 4, 4560, "KILLED")


def test_equal_pushes_pair_in_their_order() -> None:
    agent = AgentUnderTest()
    start(agent)
    start(agent)
    end(agent, pid=5)
    end(agent, pid=6)
    end(agent, pid=7)  # whose start was lost
    started = [fact.push_id for fact in agent.said() if isinstance(fact, PushStarted)]
    assert [push.push_id for push in ended(agent)][:2] == started
    assert ended(agent)[2].started_at is None


def test_a_recording_tells_which_push_wrote_it() -> None:
    agent = AgentUnderTest()
    start(agent, "/rec/$stream-$datetime.mkv")
    start(agent, "/rec/auto-$stream.mkv")
    last_words(agent, pid=6, target="/rec/auto-live+lobby.mkv", trigger="RECORDING_END")
    last_words(agent, pid=5, target="/rec/live+lobby-2026.mkv", trigger="RECORDING_END")
    end(agent, pid=5, target="/rec/$stream-$datetime.mkv", used="/rec/live+lobby-2026.mkv")
    started = [fact.push_id for fact in agent.said() if isinstance(fact, PushStarted)]
    assert [fact.push_id for fact in agent.said() if isinstance(fact, RecordingEnded)] == [started[1], started[0]]
    assert ended(agent)[0].push_id == started[0]


def test_a_restart_of_the_server_concludes_and_a_late_end_still_counts() -> None:
    agent = AgentUnderTest()
    start(agent)
    agent.send("SYSTEM_START", "3.10", pid=2)
    last_words(agent, pid=5)
    end(agent, pid=5)
    assert [(push.synthesized, push.end_reason) for push in ended(agent)] == [(True, "KILLED"), (False, "CLEAN_EOF")]
    assert len({push.push_id for push in ended(agent)}) == 1


def test_pushes_of_the_operators_own_streams_are_none_of_our_business() -> None:
    agent = AgentUnderTest()
    assert agent.send("PUSH_OUT_START", "copy\n/rec/x.mkv") == "/rec/x.mkv"
    agent.send("PUSH_END", "5\ncopy\n/rec/x.mkv\n/rec/x.mkv\n[]\nnull")
    assert agent.said() == []


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([stream_policy()], "/rec/x.mkv"),
        ([stream_policy(deleted=True)], ""),
        ([replace(stream_policy(), disabled=True)], ""),
        ([stream_policy(), tenant_policy(standing=TenantStanding.SUSPENDED)], ""),
        ([stream_policy(), tenant_policy()], "/rec/x.mkv"),
        ([], "/rec/x.mkv"),  # the operator's own
    ],
)
def test_what_nobody_may_watch_is_not_pushed(policies: list[Policy], expected: str) -> None:
    agent = AgentUnderTest(policies)
    assert agent.send("PUSH_OUT_START", "live+lobby\n/rec/x.mkv") == expected
    assert bool(agent.said()) is bool(expected and policies)
