"""What a change of the policy wants done with what already runs: pure rules.

Invariants
* Only what runs here is acted on, and only what an earlier policy let in and this one would not. The same change gives the same
  actions under the same ids, so that news which come twice are acted on once.
* A key is revoked without grace where its end lies before its publisher began; a publisher whose key ends later stays.
* An action is judged again each time before the media server is asked: what is allowed again by then is left alone, and a
  publisher who came since with a good key is never dropped for the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias
from uuid import UUID

from edge_agent.admission import is_revoked
from edge_agent.node_state import Action, NodeState, Subject
from edge_agent.policy import LIVE, PolicyTable
from edge_agent.turn import subject_of
from streams.generated import (
    EdgeAction,
    EdgeActionStatus,
    PlaybackKind,
    PlaybackPolicy,
    Policy,
    StreamPolicy,
    StreamTasks,
    TenantPolicy,
    TenantStanding,
)
from streams.ids import derive
from streams.playback.rules import PUBLIC

CONFIRM_MS: Final = 5_000  # an end is said by a trigger within about a second (CONTRACT 6.5)
TRIES: Final = 3
StreamOf: TypeAlias = Callable[[UUID], StreamPolicy | None]


def actions(old: Policy | None, new: Policy | None, state: NodeState, stream_of: StreamOf, now_ms: int) -> Sequence[Action]:
    """What follows from one record of the policy that changed. `new` None: it is none of this node's business any more."""
    match new or old:
        case StreamPolicy() as newest if isinstance(old, StreamPolicy | None) and isinstance(new, StreamPolicy | None):
            return _of_stream(old, new, newest, state, now_ms)
        case TenantPolicy() as newest if isinstance(old, TenantPolicy | None):
            return _of_tenant(old, newest, state, stream_of, now_ms) if new else ()
        case StreamTasks() as newest if isinstance(old, StreamTasks | None):
            return _stops(old, newest, state, now_ms) if new else ()
        case _:
            return ()


def _of_stream(
    old: StreamPolicy | None, new: StreamPolicy | None, newest: StreamPolicy, state: NodeState, now_ms: int
) -> Sequence[Action]:
    if _is_shut(new):
        return (
            [_stop(newest, newest.version, now_ms)]
            if not (old and _is_shut(old)) and is_open_here(state, newest.stream_id)
            else ()
        )
    found: list[Action] = []
    for _, ingest in state.open_ingests(newest.stream_id):
        if not ingest.is_lost and is_revoked(newest, ingest.key_prefix, ingest.started_ms):
            found.append(_action(newest, EdgeAction.DROP_PUBLISHER, newest.version, now_ms, ingest_id=ingest.ingest_id))
    watching = state.open_viewings(newest.stream_id)
    if watching and is_tighter(old.playback if old else None, newest.playback):
        found.append(_action(newest, EdgeAction.RECHECK_VIEWERS, newest.version, now_ms))
    known = {kick.kick_id for kick in old.kicked} if old else set()
    for kick in newest.kicked:
        until_ms = round(kick.until.timestamp() * 1000)
        is_here = any(viewing.session_id == kick.session_id for viewing in watching)
        if kick.kick_id not in known and until_ms > now_ms and is_here:
            stop = _action(newest, EdgeAction.STOP_VIEWER, newest.version, now_ms, session_id=kick.session_id, until_ms=until_ms)
            found.append(replace(stop, request_id=kick.kick_id))
    return found


def _of_tenant(
    old: TenantPolicy | None, new: TenantPolicy, state: NodeState, stream_of: StreamOf, now_ms: int
) -> Sequence[Action]:
    was_active = old is None or old.standing is TenantStanding.ACTIVE
    is_cut = was_active and new.standing is not TenantStanding.ACTIVE
    lost_keys = old is not None and bool(set(old.signing_keys) - set(new.signing_keys))
    if not is_cut and not lost_keys:
        return ()
    here = list(filter(None, map(stream_of, _open_streams(state, new.tenant_id))))
    if is_cut:
        return [_stop(stream, new.version, now_ms) for stream in here]
    return [
        _action(stream, EdgeAction.RECHECK_VIEWERS, new.version, now_ms)
        for stream in here
        if stream.playback and stream.playback.kind is PlaybackKind.JWT and state.open_viewings(stream.stream_id)
    ]


def _stops(old: StreamTasks | None, new: StreamTasks, state: NodeState, now_ms: int) -> Sequence[Action]:
    """Stops that were not heard of before, where there is something to stop."""
    known = {stop.request_id for stop in old.stops} if old else set()
    return [
        Action(
            request_id=stop.request_id,
            action=EdgeAction.STOP_STREAM,
            subject=Subject(new.tenant_id, new.stream_id),
            stream=f"{LIVE}{new.internal_name}",
            policy_version=new.version,
            asked_ms=now_ms,
            until_ms=round(stop.expires_at.timestamp() * 1000) if stop.expires_at else None,
            is_once=True,
        )
        for stop in new.stops
        if stop.request_id not in known and is_open_here(state, new.stream_id)
    ]


def is_tighter(old: PlaybackPolicy | None, new: PlaybackPolicy | None) -> bool:
    """Whether somebody whom the old policy let in might be refused by the new one."""
    before, after = old or PUBLIC, new or PUBLIC
    if before == after:
        return False
    return (
        (after.kind is not PlaybackKind.PUBLIC and after.kind is not before.kind)
        or (after.kind is PlaybackKind.JWT and after.audience not in (None, before.audience))
        or (after.kind is PlaybackKind.WEBHOOK and after.webhook_url != before.webhook_url)
        or (after.kind is not PlaybackKind.PUBLIC and before.open_when_unavailable and not after.open_when_unavailable)
        or _narrows(before.allowed_countries, after.allowed_countries)
        or _narrows(before.allowed_origins, after.allowed_origins)
        or bool(set(after.blocked_countries) - set(before.blocked_countries))
        or (after.max_viewers is not None and (before.max_viewers is None or after.max_viewers < before.max_viewers))
    )


def _narrows(before: Iterable[str], after: Iterable[str]) -> bool:
    """Of lists that allow everything where they are empty."""
    now, then = set(after), set(before)
    return bool(now) and (not then or bool(then - now))


def _is_shut(stream: StreamPolicy | None) -> bool:
    return stream is None or stream.deleted or stream.disabled


def is_open_here(state: NodeState, stream_id: UUID) -> bool:
    """Whether anybody publishes or watches it. Who is on the way in is judged by the new policy when STREAM_PUSH comes."""
    return any(not ingest.is_lost for _, ingest in state.open_ingests(stream_id)) or bool(state.open_viewings(stream_id))


def _open_streams(state: NodeState, tenant_id: UUID) -> Iterable[UUID]:
    open_now: Iterable[Subject] = (
        *(i.subject for i in state.ingests if i.concluded_ms is None and not i.is_lost),
        *(v.subject for v in state.viewings if v.is_open),
    )
    return dict.fromkeys(s.aggregate_id for s in open_now if s.tenant_id == tenant_id)


def _stop(stream: StreamPolicy, version: int, now_ms: int) -> Action:
    return _action(stream, EdgeAction.STOP_STREAM, version, now_ms)


def _action(
    stream: StreamPolicy,
    action: EdgeAction,
    version: int,
    now_ms: int,
    *,
    ingest_id: UUID | None = None,
    session_id: str | None = None,
    until_ms: int | None = None,
) -> Action:
    return Action(
        request_id=derive(stream.stream_id, action.value, version, ingest_id or ""),
        action=action,
        subject=subject_of(stream),
        stream=f"{LIVE}{stream.internal_name}",
        policy_version=version,
        asked_ms=now_ms,
        ingest_id=ingest_id,
        session_id=session_id,
        until_ms=until_ms,
    )


# What is to be done about an action now.


@dataclass(frozen=True, slots=True)
class Send:
    """Ask the media server. `publisher_of`: where its API lists a publisher's session of this stream, that is stopped instead."""

    commands: Mapping[str, object]
    publisher_of: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """It was asked; what follows has to be seen first."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Over:
    status: EdgeActionStatus
    detail: str | None = None


Next: TypeAlias = Send | Wait | Over


def next_step(action: Action, state: NodeState, policy: PolicyTable, now_ms: int) -> Next:
    """What is to be done about an action, by what is known now."""
    if action.until_ms is not None and action.until_ms <= now_ms:
        return Over(EdgeActionStatus.EXPIRED, "it could not be done in time")
    if not _runs(action, state):
        return Over(EdgeActionStatus.DONE, None if action.tries else "it had ended by itself")
    if not _is_wanted(action, policy):
        return Over(EdgeActionStatus.EXPIRED, "it is allowed again")
    if action.sent_ms is not None and now_ms < action.sent_ms + CONFIRM_MS:
        return Wait(action.sent_ms + CONFIRM_MS)
    if action.tries >= TRIES:
        return Over(EdgeActionStatus.FAILED, f"the media server took it {TRIES} times, and it still runs")
    return Send(_commands(action), action.stream if action.action is EdgeAction.DROP_PUBLISHER and not action.tries else None)


def _runs(action: Action, state: NodeState) -> bool:
    """Whether what is to be ended still is there, as far as the triggers and the API told. Viewers are asked again only once."""
    match action.action:
        case EdgeAction.DROP_PUBLISHER:
            ingests = state.open_ingests(action.subject.aggregate_id)
            return any(i.ingest_id == action.ingest_id and not i.is_lost for _, i in ingests)
        case EdgeAction.STOP_VIEWER:
            return any(v.is_open for v in state.viewings_of_session(action.session_id or ""))
        case EdgeAction.STOP_STREAM if action.is_once:
            return _is_open_since(state, action.subject.aggregate_id, action.asked_ms)
        case EdgeAction.STOP_STREAM:
            return is_open_here(state, action.subject.aggregate_id)
        case _:
            return not action.tries


def _is_open_since(state: NodeState, stream_id: UUID, asked_ms: int) -> bool:
    """Whether anybody is left who was there then: who came since is not cut."""
    publishers = (ingest for _, ingest in state.open_ingests(stream_id) if not ingest.is_lost)
    return any(i.started_ms <= asked_ms for i in publishers) or any(
        v.joined_ms <= asked_ms for v in state.open_viewings(stream_id)
    )


def _is_wanted(action: Action, policy: PolicyTable) -> bool:
    """Whether the policy, which may have changed since, still wants it."""
    if action.action is not EdgeAction.STOP_STREAM or action.is_once:
        return True
    stream, tenant = policy.stream(action.subject.aggregate_id), policy.tenant(action.subject.tenant_id)
    if _is_shut(stream) or (tenant is not None and tenant.standing is not TenantStanding.ACTIVE):
        return True
    # After a kill the action may be on the disk and the policy that it came from not yet: it comes again.
    return max(stream.version if stream else 0, tenant.version if tenant else 0) < action.policy_version


def _commands(action: Action) -> Mapping[str, object]:
    """CONTRACT 6.5: `nuke_stream` ends the buffer and drops the publisher; viewers' sessions are ended by `stop_sessions`.

    A nuke goes on for a second after the publisher is gone, and takes the buffer of one who comes back meanwhile with it: so a
    publisher that shall come back with another key is dropped by stopping its session, and nuked only where that has no effect.
    """
    match action.action:
        case EdgeAction.DROP_PUBLISHER:
            return {"nuke_stream": action.stream}
        case EdgeAction.STOP_STREAM:
            return {"nuke_stream": action.stream, "stop_sessions": action.stream}
        case EdgeAction.STOP_VIEWER:
            return {"stop_sessid": action.session_id}
        case _:
            return {"invalidate_sessions": action.stream}
