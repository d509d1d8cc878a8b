"""Pushes and recordings: from PUSH_OUT_START to PUSH_END, with the figures of the process's own last words.

Invariant: a push that started ends once. PUSH_END does not say which start it belongs to, so they pair by (stream, target as
asked), first in first out; its bytes are those of OUTPUT_END, for its own status is up to 5 s old (CONTRACT section 3).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from edge_agent.bodies import OutputEnd, PushEnd, PushOutStart
from edge_agent.mist.push_list import PushStatus
from edge_agent.node_state import Push, PushResult
from edge_agent.redact import digest, redacted_target, redacted_text, without_secrets_of
from edge_agent.turn import Turn, subject_of
from streams.generated import PushEnded, PushStarted, RecordingEnded, StreamPolicy
from streams.playback.rules import forbidden

KILLED: Final = "KILLED"
KILLED_DETAIL: Final = "its process was killed"
NOT_PUSHED: Final = ""
_VARIABLE = re.compile(r"\$\w+")


def push_out_start(turn: Turn, body: PushOutStart) -> str:
    """The target unchanged; nothing where the stream may not be watched by anybody: then it is not pushed (CONTRACT 2.3)."""
    stream = turn.policy.by_media_name(body.stream)
    if stream and forbidden(stream, turn.policy.tenant(stream.tenant_id)):
        return NOT_PUSHED
    if stream:
        start(turn, stream, body)
    return body.target


def start(turn: Turn, stream: StreamPolicy, body: PushOutStart, *, pid: int | None = None, evidence: str | None = None) -> None:
    """`evidence`: no trigger told of it, the media server's API did."""
    push_id = turn.derived("push")
    shown = redacted_target(body.target)
    told = PushStarted(turn.node.node_id, push_id, shown, synthesized=evidence is not None, evidence=evidence)
    event_id = turn.say(told, subject_of(stream))
    turn.state.pushes.put(
        str(push_id),
        Push(
            subject=subject_of(stream),
            push_id=push_id,
            stream=body.stream,
            target=shown,
            target_digest=digest(body.target),
            resolved_digest=digest(resolved(body.target, body.stream)),
            started_ms=turn.trigger.unix_ms,
            first_event=event_id,
            pid=pid,
        ),
    )


def output_end(turn: Turn, body: OutputEnd) -> None:
    """OUTPUT_END with a target: kept for the PUSH_END that follows within a second."""
    if turn.policy.by_media_name(body.stream) is None:
        return
    turn.state.push_results.put(
        turn.pid,
        PushResult(body.sent_bytes, body.seconds, body.media_ms, body.code, redacted_text(body.text), turn.now_ms),
    )


def recording_end(turn: Turn, body: OutputEnd) -> None:
    stream = turn.policy.by_media_name(body.stream)
    if stream is None:
        return
    push = _writer_of(turn, body)
    if push and push.pid is None:
        turn.state.pushes.put(str(push.push_id), replace(push, pid=turn.trigger.pid))
    turn.say(
        RecordingEnded(
            node_id=turn.node.node_id,
            recording_id=turn.derived("recording"),
            path=redacted_target(body.target),
            connector=body.connector,
            size_bytes=body.sent_bytes,
            seconds=body.seconds,
            started_at=turn.moment(body.started_unix * 1000),
            ended_at=turn.moment(body.ended_unix * 1000),
            media_ms=body.media_ms,
            end_reason=body.code,
            push_id=push.push_id if push else None,
            first_media_ms=body.first_media_ms,
            last_media_ms=body.last_media_ms,
            end_detail=redacted_text(body.text) or None,
        ),
        subject_of(stream),
        correlation=push.first_event if push else None,
    )


def push_end(turn: Turn, body: PushEnd) -> None:
    stream = turn.policy.by_media_name(body.stream)
    push = _ended_by(turn, body)
    result = turn.state.push_results.drop(str(body.pid))
    note_end(turn, body, result)
    if stream is None and push is None:
        return
    turn.say(
        PushEnded(
            node_id=turn.node.node_id,
            push_id=push.push_id if push else turn.derived("push"),
            target=redacted_target(body.target),
            target_used=redacted_target(body.target_used),
            started_at=turn.moment(push.started_ms) if push else None,
            seconds=result.seconds if result else body.status_seconds,
            sent_bytes=result.sent_bytes if result else body.status_bytes,
            media_ms=result.media_ms if result else body.status_media_ms,
            end_reason=result.code if result else KILLED,
            end_detail=(without_secrets_of(body.target, result.text) or None) if result else None,
        ),
        push.subject if push else subject_of(stream),  # type: ignore[arg-type]  # one of the two is there
        correlation=push.first_event if push else None,
        part=push.push_id if push else "",
    )
    if push:
        turn.state.pushes.drop(str(push.push_id))


def note_end(turn: Turn, body: PushEnd, result: PushResult | None) -> None:
    """Of a push that the platform wants: what is made of its end, the plan says (`tasks.py`)."""
    asked = digest(body.target)
    for key, task in turn.state.tasks.items():
        if task.stream == body.stream and task.digest == asked and task.pid in (None, body.pid):
            reason = f"{result.text} ({result.code})" if result and result.text else result.code if result else None
            told = without_secrets_of(body.target, reason or body.last_complaint or KILLED_DETAIL)
            sent = result.sent_bytes if result else body.status_bytes if body.status_bytes is not None else task.sent_bytes
            turn.state.tasks.put(key, replace(task, ended_ms=turn.now_ms, ended_pid=body.pid, ended=told, sent_bytes=sent))


def conclude_all(turn: Turn) -> None:
    """SYSTEM_START: PUSH_END of pushes that went down with the server is never sent (CONTRACT section 5)."""
    for push in turn.state.pushes:
        conclude(turn, push, "the media server started anew")
    turn.state.push_results.clear()


def conclude(turn: Turn, push: Push, detail: str, *, status: PushStatus | None = None, evidence: str | None = None) -> None:
    """Ends a push of which the media server says no more; `status`: what its API said last."""
    if push.concluded_ms is not None:
        return
    turn.say(
        PushEnded(
            node_id=turn.node.node_id,
            push_id=push.push_id,
            target=push.target,
            target_used=push.target,
            started_at=turn.moment(push.started_ms),
            seconds=status.active_seconds if status else None,
            sent_bytes=status.bytes if status else None,
            media_ms=status.media_tx if status else None,
            end_reason=KILLED,
            end_detail=detail,
            synthesized=True,
            evidence=evidence,
        ),
        push.subject,
        correlation=push.first_event,
        part=push.push_id,
    )
    turn.state.pushes.put(str(push.push_id), replace(push, concluded_ms=turn.now_ms))


def _ended_by(turn: Turn, body: PushEnd) -> Push | None:
    """By the process, where a recording told it; else the oldest of the stream and target: open ones first."""
    asked = digest(body.target)
    alike = [p for p in turn.state.pushes if p.stream == body.stream and p.target_digest == asked]
    by_process = [p for p in alike if p.pid == body.pid]
    unbound = [p for p in alike if p.pid is None]
    for candidates in (by_process, [p for p in unbound if p.concluded_ms is None], unbound, alike):
        if candidates:
            return candidates[0]
    return None


def _writer_of(turn: Turn, body: OutputEnd) -> Push | None:
    """The push that wrote a file: its target, variables aside, is the file's path."""
    path = redacted_target(body.target)
    known = [p for p in turn.state.pushes if p.stream == body.stream and _may_become(resolved(p.target, p.stream), path)]
    by_process = [p for p in known if p.pid == turn.trigger.pid]
    unbound = sorted((p for p in known if p.pid is None), key=lambda p: (p.concluded_ms is not None, p.target.count("$")))
    return next(iter(by_process or unbound), None)


def resolved(target: str, stream: str) -> str:
    """The target with the variables replaced whose values are known before the push runs."""
    return target.replace("$stream", stream).replace("$wildcard", stream.partition("+")[2])


def _may_become(target: str, path: str) -> bool:
    pattern = ".*".join(map(re.escape, _VARIABLE.split(target.partition("?")[0])))
    return re.fullmatch(pattern, path.partition("?")[0]) is not None
