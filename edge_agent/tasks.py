"""What is to be done about pushes and recordings: the difference between what is wanted and what the media server does.

Invariants
* `plan_tasks` is pure. A step that asks the media server for something is on the disk before it is asked, so that after a kill a
  push that runs is known as ours.
* A push is ours if we asked for it. One to the same place that somebody else started is told as what it is, and never ended.
* The media server keeps no push for us (what it retries by itself can hardly be taken back, CONTRACT 6.6): we try again, after
  1 s, then twice as long each time up to 60 s; a push that ran for a minute begins anew.
* A node speaks of a target while it has the stream, and once more when that is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from edge_agent.mist.push_list import RunningPush
from edge_agent.node_state import Subject, Task
from edge_agent.redact import digest, redacted_text
from streams.generated import EdgeAction, EdgeActionStatus, PushKind, PushTargetState

FIRST_PAUSE_MS: Final = 1_000
LONGEST_PAUSE_MS: Final = 60_000
STEADY_MS: Final = 60_000  # a push that ran so long has succeeded: the next end counts as the first
STARTED_MS: Final = 3_000  # an output that cannot be is gone within 2 s (CONTRACT 6.6)
SETTLE_MS: Final = 1_500  # between the end of a push and what is made of it: the end of its stream is often right behind
SILENT_MS: Final = 15_000  # where the server gives no figures (CONTRACT 6.9), a push that runs so long is believed to send
NO_FIGURES: Final = "it runs; the media server gives no figures of it"
ASK_AGAIN_MS: Final = 10_000
URL_MS: Final = 3_000
TELL_MS: Final = 60_000  # how often the bytes of a push that runs are told
NO_URL: Final = "its URL has not reached this node yet"
NOT_LIVE: Final = "the stream is not live here"
FOREIGN: Final = "a push to the same place was started at the media server by somebody else"
SILENT_END: Final = "it is gone, and the media server did not say why"
NEVER_THERE: Final = "the media server did not start it, or it ended at once without a word"


@dataclass(frozen=True, slots=True)
class Wish:
    """A push or recording that shall run while its stream is live. `target` None: not known (yet)."""

    target_id: UUID
    kind: PushKind
    request_id: UUID
    subject: Subject
    stream: str  # as the media server calls it
    target: str | None
    policy_version: int = 0
    obstacle: str | None = None  # why it cannot be done here at all
    is_published: bool = False  # somebody publishes the stream here, or has just been lost sight of
    may_start: bool = False  # somebody surely does


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the media server."""

    pushes: Sequence[RunningPush]
    online: frozenset[str]  # streams that are on the air


@dataclass(frozen=True, slots=True)
class Step:
    """`task`: as it is from now on; `is_over`: and then forgotten. `commands`: what the media server is asked for."""

    why: str
    task: Task
    is_over: bool = False
    is_told: bool = True  # whether the platform hears of the state
    commands: Mapping[str, object] | None = None
    target: str | None = None  # of a push that is to start
    report: tuple[EdgeAction, EdgeActionStatus, str | None] | None = None


def plan_tasks(wishes: Mapping[UUID, Wish], seen: Seen, tasks: Mapping[UUID, Task], now_ms: int) -> list[Step]:
    """At most one step for each target."""
    found = []
    for target_id in {**tasks, **wishes}:
        wish, task = wishes.get(target_id), tasks.get(target_id)
        step = _wanted(wish, task, seen, now_ms) if wish else _unwanted(task, seen, now_ms) if task else None
        if step is not None:
            found.append(step)
    return found


def _wanted(wish: Wish, known: Task | None, seen: Seen, now_ms: int) -> Step | None:
    if known is None:
        return _begin(wish, seen, now_ms)
    task = _asked_anew(wish, known)
    running = _running(seen, task)
    if running is not None:
        return _runs(task, running, now_ms) or _kept(task, known)
    if not wish.is_published:
        waiting = _changed(task, PushTargetState.WAITING, now_ms, reason=NOT_LIVE, retry_ms=None)
        return Step(f"waits: {NOT_LIVE}", waiting, is_over=True)
    is_live = wish.may_start and wish.stream in seen.online
    match task.state:
        case PushTargetState.CONNECTING | PushTargetState.ACTIVE:
            step = _ended(task, now_ms)
        case PushTargetState.BACKING_OFF:
            step = _start(wish, task, task.attempt + 1, now_ms) if is_live and now_ms >= (task.retry_ms or 0) else None
        case PushTargetState.FAILED:
            step = None
        case _ if wish.target is None and wish.obstacle is None:
            step = _lacks_url(task) if now_ms - task.since_ms >= URL_MS else None
        case _:
            step = _start(wish, task, 1, now_ms) if is_live else None
    return step or _kept(task, known)


def _begin(wish: Wish, seen: Seen, now_ms: int) -> Step | None:
    """Of something that nothing was done about yet."""
    if not wish.may_start or wish.stream not in seen.online:
        return None
    task = Task(
        target_id=wish.target_id,
        kind=wish.kind,
        request_id=wish.request_id,
        subject=wish.subject,
        stream=wish.stream,
        state=PushTargetState.WAITING,
        since_ms=now_ms,
        policy_version=wish.policy_version,
    )
    if wish.target is None and wish.obstacle is None:
        return Step("waits for its URL", task, is_told=False)
    foreign = replace(task, digest=digest(wish.target or ""), is_foreign=True, attempt=1, reason=FOREIGN)
    if (running := _running(seen, foreign)) is not None:
        return _runs(replace(foreign, state=PushTargetState.CONNECTING, asked_ms=now_ms), running, now_ms)
    return _start(wish, task, 1, now_ms)


def _lacks_url(task: Task) -> Step | None:
    """It may come a moment after the record that names the target."""
    if task.reason == NO_URL:
        return None
    action = _action(task, EdgeActionStatus.ACKNOWLEDGED)[0]
    return Step(f"waits: {NO_URL}", replace(task, reason=NO_URL), report=(action, EdgeActionStatus.ACKNOWLEDGED, NO_URL))


def _asked_anew(wish: Wish, known: Task) -> Task:
    """The task under the newest wish. What failed is tried again when it is asked for again."""
    task = replace(known, is_ending=False, policy_version=wish.policy_version, stream=wish.stream)
    if task.request_id == wish.request_id:
        return task
    is_failed = task.state is PushTargetState.FAILED
    state = PushTargetState.WAITING if is_failed else task.state
    return replace(task, request_id=wish.request_id, is_done=False, state=state, retry_ms=None)


def _start(wish: Wish, task: Task, attempt: int, now_ms: int) -> Step:
    if wish.obstacle is not None or wish.target is None:
        return failed(task, wish.obstacle or NO_URL, now_ms)
    started = _changed(
        replace(task, digest=digest(wish.target), pid=None, sent_bytes=None, asked_ms=now_ms, active_ms=None, is_foreign=False),
        PushTargetState.CONNECTING,
        now_ms,
        attempt=attempt,
        retry_ms=None,
        reason=None,
    )
    action = _action(task, EdgeActionStatus.ACKNOWLEDGED)[0]
    return Step(
        f"starts, attempt {attempt}",
        replace(started, ended_ms=None, ended_pid=None, ended=None, missed_ms=None),
        commands={"push_start": {"stream": wish.stream, "target": wish.target}, "push_list": True},
        target=wish.target,
        report=(action, EdgeActionStatus.ACKNOWLEDGED, None) if attempt == 1 and not task.is_done else None,
    )


def failed(task: Task, reason: str, now_ms: int) -> Step:
    """It will not be tried again."""
    action = _action(task, EdgeActionStatus.FAILED)[0]
    told = _changed(task, PushTargetState.FAILED, now_ms, reason=reason, retry_ms=None, pid=None)
    return Step(f"fails: {reason}", replace(told, is_done=True), report=(action, EdgeActionStatus.FAILED, reason))


def _runs(task: Task, running: RunningPush, now_ms: int) -> Step | None:
    """It is in the list. Whether something is worth saying, or keeping, about that."""
    status, asked_ms = running.status, task.asked_ms or now_ms
    sent = status.bytes if status else None
    is_silent = status is None and now_ms - asked_ms >= SILENT_MS
    is_sending = is_silent or bool(status and (status.bytes or status.media_tx))
    at = replace(task, pid=running.pid, sent_bytes=sent if sent is not None else task.sent_bytes, missed_ms=None)
    if task.state is PushTargetState.ACTIVE:
        if not task.is_done:
            return Step("goes on under another request", replace(at, is_done=True), report=_action(task, EdgeActionStatus.DONE))
        is_due = now_ms - task.said_ms >= TELL_MS and at.sent_bytes != task.sent_bytes
        return Step("goes on", at) if is_due else None
    if is_sending:
        reason = FOREIGN if task.is_foreign else NO_FIGURES if is_silent else None
        told = _changed(at, PushTargetState.ACTIVE, now_ms, active_ms=now_ms, reason=reason, retry_ms=None)
        report = None if task.is_done else _action(task, EdgeActionStatus.DONE)
        return Step("is active", replace(told, is_done=True), report=report)
    if task.state is not PushTargetState.CONNECTING:  # it was given up, and is there
        return Step("is there", _changed(replace(at, asked_ms=now_ms), PushTargetState.CONNECTING, now_ms, retry_ms=None))
    return Step("has a process", at, is_told=False) if at.pid != task.pid or task.missed_ms is not None else None


def _ended(task: Task, now_ms: int) -> Step | None:
    """It ran, or was to, and is not in the list."""
    if task.ended_ms is not None:
        return _back_off(task, task.ended or SILENT_END, now_ms) if now_ms - task.ended_ms >= SETTLE_MS else None
    if task.missed_ms is None:
        return Step("is not listed", replace(task, missed_ms=now_ms), is_told=False)
    if now_ms - max(task.missed_ms, task.asked_ms or 0) < STARTED_MS:
        return None
    return _back_off(task, SILENT_END if task.pid else NEVER_THERE, now_ms)


def _back_off(task: Task, reason: str, now_ms: int) -> Step:
    is_steady = task.active_ms is not None and (task.ended_ms or task.missed_ms or now_ms) - task.active_ms >= STEADY_MS
    attempt = 1 if is_steady else max(task.attempt, 1)
    pause_ms = pause(attempt)
    told = _changed(task, PushTargetState.BACKING_OFF, now_ms, reason=redacted_text(reason), attempt=attempt, pid=None)
    told = replace(told, retry_ms=now_ms + pause_ms, active_ms=None, missed_ms=None, is_foreign=False)
    return Step(f"ended ({told.reason}), is tried again in {pause_ms // 1000} s", told)


def pause(attempt: int) -> int:
    """Milliseconds to wait after so many attempts."""
    return min(FIRST_PAUSE_MS << min(attempt - 1, 16), LONGEST_PAUSE_MS)


def _unwanted(task: Task, seen: Seen, now_ms: int) -> Step | None:
    running = _running(seen, task)
    if running is None:
        report = (_stopping(task), EdgeActionStatus.DONE, None) if task.digest and not task.is_foreign else None
        stopped = _changed(task, PushTargetState.STOPPED, now_ms, reason=None, retry_ms=None)
        return Step("is stopped", stopped, is_over=True, report=report)
    if task.is_foreign:
        detail = f"{FOREIGN}: it is left alone"
        stopped = _changed(task, PushTargetState.STOPPED, now_ms, reason=detail, retry_ms=None)
        return Step(f"stays: {detail}", stopped, is_over=True, report=(_stopping(task), EdgeActionStatus.FAILED, detail))
    if task.is_ending and now_ms - (task.asked_ms or 0) < ASK_AGAIN_MS:
        return None
    ending = replace(task, is_ending=True, asked_ms=now_ms, pid=running.pid)
    return Step("is to end", ending, is_told=False, commands={"push_stop": running.pid})


def _running(seen: Seen, task: Task) -> RunningPush | None:
    """The process that does it. One that was said to have ended may stay in the list for a second."""
    alike = (p for p in seen.pushes if p.stream == task.stream and p.pid != task.ended_pid)
    return next((p for p in alike if digest(p.target) == task.digest), None)


def _kept(task: Task, known: Task) -> Step | None:
    return Step("is asked for anew", task, is_told=False) if task != known else None


def _changed(task: Task, state: PushTargetState, now_ms: int, **more: object) -> Task:
    since_ms = task.since_ms if task.state is state else now_ms
    return replace(task, state=state, since_ms=since_ms, **more)  # type: ignore[arg-type]  # fields of its own


def _action(task: Task, status: EdgeActionStatus) -> tuple[EdgeAction, EdgeActionStatus, str | None]:
    is_recording = task.kind is PushKind.RECORDING
    return EdgeAction.START_RECORDING if is_recording else EdgeAction.START_PUSH, status, None


def _stopping(task: Task) -> EdgeAction:
    return EdgeAction.STOP_RECORDING if task.kind is PushKind.RECORDING else EdgeAction.STOP_PUSH
