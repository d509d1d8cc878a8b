"""What of the policy's tasks this node has to do: those of streams that are, or were a moment ago, published here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from uuid import UUID

from edge_agent.node_state import NodeState, Subject
from edge_agent.policy import LIVE, PolicyTable
from edge_agent.task_settings import TaskSettings
from edge_agent.tasks import Wish
from edge_agent.turn import moment
from streams import push_urls
from streams.generated import PushKind, StreamTasks, WantedPush, WantedRecording
from streams.ids import derive


def wishes(
    policy: PolicyTable, state: NodeState, settings: TaskSettings, now_ms: int, *, obstacle: str | None = None
) -> Mapping[UUID, Wish]:
    """By target id. `obstacle`: why nothing at all can be done here."""
    published: dict[UUID, bool] = {}  # and whether surely so
    for ingest in state.ingests:
        if ingest.concluded_ms is None:
            stream_id = ingest.subject.aggregate_id
            published[stream_id] = published.get(stream_id, False) or not ingest.is_lost
    found = {}
    for stream_id in {*published, *(task.subject.aggregate_id for task in state.tasks)}:
        record = policy.get(derive(stream_id, "tasks"))
        if isinstance(record, StreamTasks):
            at = moment(now_ms)
            is_published, may_start = stream_id in published, published.get(stream_id, False)
            for wish in _of(record, policy, settings, at, obstacle, is_published=is_published, may_start=may_start):
                found[wish.target_id] = wish
    return found


def _of(
    record: StreamTasks,
    policy: PolicyTable,
    settings: TaskSettings,
    at: datetime,
    obstacle: str | None,
    *,
    is_published: bool,
    may_start: bool,
) -> Iterator[Wish]:
    every: Iterable[WantedPush | WantedRecording] = (*record.pushes, *record.recordings)
    for wanted in every:
        if wanted.expires_at is not None and wanted.expires_at <= at:
            continue
        if isinstance(wanted, WantedPush):
            target_id, kind, (target, problem) = wanted.target_id, PushKind.TARGET, _push(wanted, policy, settings)
        else:
            target_id, kind, (target, problem) = wanted.recording_id, PushKind.RECORDING, _recording(wanted, settings)
        yield Wish(
            target_id=target_id,
            kind=kind,
            request_id=wanted.request_id,
            subject=Subject(record.tenant_id, record.stream_id),
            stream=f"{LIVE}{record.internal_name}",
            target=target,
            policy_version=record.version,
            obstacle=obstacle or problem,
            is_published=is_published,
            may_start=may_start,
        )


def _push(wanted: WantedPush, policy: PolicyTable, settings: TaskSettings) -> tuple[str | None, str | None]:
    secret = policy.secret(wanted.target_id)
    if secret is None:
        return None, None
    url = secret.decode("utf-8", "replace")
    problem = push_urls.problem(url, allows_private=settings.allows_private_pushes)
    return url, f"it may not be pushed to from this node: {problem}" if problem else None


def _recording(wanted: WantedRecording, settings: TaskSettings) -> tuple[str | None, str | None]:
    if settings.recordings_dir is None:
        return None, "this node has no place for recordings: set FW_EDGE_RECORDINGS_DIR"
    return f"{settings.recordings_dir}/$stream-$datetime-{wanted.recording_id}.{wanted.container}", None
