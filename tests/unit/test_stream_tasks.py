"""What is to be done with a stream, folded from decisions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from projections.stream_tasks import HANDLES, STOPS_KEPT, evolve
from streams.generated import (
    Decision,
    Meta,
    PushTargetCreated,
    PushTargetDeleted,
    PushTargetDisabled,
    PushTargetEnabled,
    RecordingCalledOff,
    RecordingRequested,
    StreamCreated,
    StreamDeleted,
    StreamStopRequested,
    StreamTasks,
    WantedPush,
    WantedRecording,
    WantedStop,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT, STREAM = UUID(int=100), UUID(int=200)
ONE, TWO = UUID(int=1), UUID(int=2)


def folded(*events: Decision) -> StreamTasks | None:
    tasks = None
    for n, event in enumerate(events):
        tasks = evolve(tasks, event, Meta(UUID(int=1000 + n), TENANT, STREAM, n + 1, STREAM, STREAM, NOON, "token:x"))
    return tasks


def created(target_id: UUID, *, enabled: bool = True) -> PushTargetCreated:
    return PushTargetCreated(
        target_id, "Second site", "rtmp://a.example.org/app/…", b"d", bytes([target_id.int]), enabled, "lobby"
    )


def tasks_of(*events: Decision) -> StreamTasks:
    tasks = folded(*events)
    assert tasks is not None
    return tasks


def test_of_a_stream_of_which_nothing_is_asked_there_is_no_record() -> None:
    started: Sequence[Decision] = (StreamCreated("Lobby", "lobby", "play", "lobby", "sk_a", b"k"), created(ONE, enabled=False))
    assert folded(*started, StreamDeleted("lobby")) is None


def test_targets_that_are_enabled_are_listed_with_the_decision_that_asked() -> None:
    tasks = tasks_of(created(ONE), created(TWO))
    assert tasks == StreamTasks(
        TENANT, STREAM, "lobby", 0, (WantedPush(UUID(int=1000), ONE, b"\x01"), WantedPush(UUID(int=1001), TWO, b"\x02"))
    )
    assert [p.target_id for p in tasks_of(created(ONE), created(TWO), PushTargetDisabled(ONE)).pushes] == [TWO]
    assert tasks_of(created(ONE), PushTargetDeleted(ONE)).pushes == ()


def test_a_target_that_is_enabled_again_is_asked_for_anew() -> None:
    tasks = tasks_of(created(ONE), PushTargetDisabled(ONE), PushTargetEnabled(ONE, b"\x01", "lobby"))
    assert tasks.pushes == (WantedPush(UUID(int=1002), ONE, b"\x01"),)


def test_recordings_are_listed_until_they_are_called_off() -> None:
    tasks = tasks_of(RecordingRequested(ONE, "mkv", "lobby"), RecordingRequested(TWO, "ts", "lobby"), RecordingCalledOff(ONE))
    assert tasks.recordings == (WantedRecording(UUID(int=1001), TWO, "ts"),)


def test_the_newest_stops_are_kept() -> None:
    stops = [StreamStopRequested(NOON + timedelta(seconds=n), "lobby") for n in range(STOPS_KEPT + 2)]
    tasks = tasks_of(*stops)
    assert tasks.stops == tuple(WantedStop(UUID(int=1000 + n), s.expires_at) for n, s in enumerate(stops))[-STOPS_KEPT:]


def test_nothing_is_to_be_done_with_a_deleted_stream() -> None:
    tasks = tasks_of(created(ONE), RecordingRequested(TWO, "mkv", "lobby"), StreamDeleted("lobby"))
    assert (tasks.pushes, tasks.recordings) == ((), ())


def test_whatever_it_handles_it_folds() -> None:
    assert {type(e) for e in (created(ONE), PushTargetDisabled(ONE), StreamDeleted(""))} <= HANDLES
