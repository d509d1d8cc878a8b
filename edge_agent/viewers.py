"""Viewers: who may watch, and each viewing from its join to its leave.

Invariant: a viewing is one (session id, USER_NEW), for session ids come again (CONTRACT section 3). Each that joined leaves
once as the media server says it; where it said nothing, an ending is concluded and marked so, and a late word of the media
server still comes under the same viewing id. A viewer who was only refused is never a viewing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from edge_agent.admission import viewer_refusal
from edge_agent.bodies import Connection, UserEnd, UserNew
from edge_agent.node_state import Action, EndedUnseen, Figures, RefusedViewer, Viewing
from edge_agent.personal import subject_of_token, viewer
from edge_agent.policy import LIVE
from edge_agent.questions import AskTenant
from edge_agent.relays import FETCHING
from edge_agent.turn import Turn, subject_of
from edge_agent.webhook_body import webhook_body
from streams.generated import (
    AdmissionBasis,
    EdgeAction,
    StreamPolicy,
    ViewerEnd,
    ViewerJoined,
    ViewerLeft,
    ViewerRejected,
    ViewerRejection,
)
from streams.ids import derive
from streams.playback.rules import (
    Allowed,
    AskWebhook,
    Denied,
    PlaybackRequest,
    after_webhook,
    decide_playback,
    forbidden,
    names_of,
    wrong_country,
)
from streams.playback.tokens import is_in_networks

LISTED_ON_MS: Final = 20_000  # longer than the API lists a session that has ended
LATE_MS: Final = 10_000  # by so much the time may be wrong at which the API's session began


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A viewer session that the media server's API lists and that USER_NEW never asked about (CONTRACT 6.8)."""

    session_id: str
    stream: str
    connector: str
    address: str
    joined_ms: int
    evidence: str


SESSION_ID_CHARACTERS: Final = 64


def user_new(turn: Turn, body: UserNew) -> str:
    """Whether the viewer may watch. A re-check (6 lines) that is passed makes no fact: its session is known already; one that is
    not passed ends the viewing, for the media server cuts it (CONTRACT 6.5)."""
    if not body.stream.startswith(LIVE) or is_peer(turn, body.connector, body.address):
        return "true"  # the operator's own stream, or another node that fetches it
    stream = turn.policy.by_media_name(body.stream)
    decided = judge(turn, body, stream)
    if isinstance(decided, Denied):
        _refuse(turn, body, stream, decided)
        return "false"
    if stream and not body.is_recheck:
        _join(turn, body, stream, decided)
    return "true"


def judge(turn: Turn, body: UserNew, stream: StreamPolicy | None) -> Allowed | Denied:
    """Unanswered: the tenant's server has to be asked first."""
    if stream is None:
        return Denied(ViewerRejection.STREAM_NOT_FOUND, "no stream of this name is known to the node")
    busy = viewer_refusal(turn.policy.node(turn.node.node_id), is_recheck=body.is_recheck)
    if busy:
        return Denied(busy, "the node takes no viewers at the moment")
    request = PlaybackRequest(
        address=body.address,
        country=turn.country_of(body.address),
        token=body.token,
        url=body.url,
        session_id=body.session_id,
        viewers=turn.state.viewers(stream.stream_id, but_session=body.session_id),
    )
    tenant = turn.policy.tenant(stream.tenant_id)
    decided = decide_playback(stream, tenant, request, turn.now, turn.is_policy_stale)
    if not isinstance(decided, AskWebhook):
        return decided
    question = AskTenant(stream.tenant_id, decided.url, webhook_body(turn.node.node_id, stream, request, body.connector))
    return after_webhook(stream, request, decided, turn.webhook(question))


def conn_play(turn: Turn, body: Connection) -> str:
    """What forbids a stream to everybody holds for viewers, too, whom the media server trusts by itself: USER_NEW is not asked of
    them. No session is told here, so the rest is USER_NEW's; and no URL means a push or a recording, which is no viewer.

    Of a media server that fetches the stream USER_NEW is never asked, so the whole policy is looked at here.
    """
    stream = turn.policy.by_media_name(body.stream)
    if stream is None or not body.url or is_peer(turn, body.connector, body.address):
        return "true"
    tenant, country = turn.policy.tenant(stream.tenant_id), turn.country_of(body.address)
    if body.connector not in FETCHING:
        return "false" if forbidden(stream, tenant) or wrong_country(stream, country) else "true"
    request = PlaybackRequest(address=body.address, country=country, url=body.url)
    decided = decide_playback(stream, tenant, request, turn.now, turn.is_policy_stale)
    if isinstance(decided, Allowed):
        return "true"
    turn.remarks.append(
        f"refused a media server that fetches {body.stream} over {body.connector}: it is in none of FW_EDGE_PEER_NETWORKS, and "
        "the stream is not for everybody"
    )
    return "false"


def play_rewrite(turn: Turn, body: Connection) -> str:
    """A playback id becomes its stream's name; everything else, pushes and recordings above all, stays as it is."""
    if not body.url:
        return body.stream
    stream = turn.policy.by_playback_id(body.stream.removeprefix(LIVE))
    return f"{LIVE}{stream.internal_name}" if stream else body.stream


def is_peer(turn: Turn, connector: str, address: str) -> bool:
    """Whether another node fetches the stream from here: over DTSC, from where the operator says that nodes are."""
    return connector in FETCHING and is_in_networks(address, turn.site.peer_networks)


def appear(turn: Turn, found: FoundSession) -> Viewing | None:
    """Takes in a session that only the API told of, as a viewing. None: of no stream of ours, or it is one already.

    `turn` is of whoever polls: its trigger's uuid must be the same whenever the same session is found again. Who may not watch is
    put on the list of what is to be done (`state.actions`): the media server asked nobody, so there is no other way to refuse.
    """
    stream = turn.policy.by_media_name(found.stream)
    if stream is None or any(v.is_open for v in turn.state.viewings_of_session(found.session_id)):
        return None
    body = UserNew(found.stream, found.address, found.connector, found.session_id, is_recheck=False)
    country = turn.country_of(found.address)
    request = PlaybackRequest(address=found.address, country=country, session_id=found.session_id, is_trusted=True)
    decided = decide_playback(stream, turn.policy.tenant(stream.tenant_id), request, turn.now, turn.is_policy_stale)
    allowed = Allowed(AdmissionBasis.MEDIA_SERVER, "")
    viewing = _join(turn, body, stream, allowed, joined_ms=found.joined_ms, evidence=found.evidence)
    if isinstance(decided, Denied):
        request_id = derive(viewing.viewing_id, "stop")
        action = Action(
            request_id=request_id,
            action=EdgeAction.STOP_VIEWER,
            subject=viewing.subject,
            stream=found.stream,
            policy_version=stream.version,
            asked_ms=turn.now_ms,
            session_id=found.session_id,
        )
        turn.state.actions.put(str(request_id), action)
    return viewing


def is_past(turn: Turn, session_id: str) -> bool:
    """Whether a session that is listed is none any more: refused, or ended a moment ago, by whichever process of its."""
    prefix = f"{session_id} "
    if any(key.startswith(prefix) for key, _ in turn.state.refused_viewers.items()):
        return True
    ends = (ended for key, ended in turn.state.ended_unseen.items() if key.startswith(prefix))
    return any(abs(turn.now_ms - ended.at_ms) < LISTED_ON_MS for ended in ends)


def user_end(turn: Turn, body: UserEnd) -> None:
    """Pairs with the join of the same session and process, else with the oldest open one of the session."""
    viewing = _of(turn, body.session_id)
    was_refused = turn.state.refused_viewers.drop(_refusal_key(body.session_id, turn.pid)) is not None
    if viewing:
        _leave(turn, viewing, body)
        turn.state.drop_viewing(viewing)
    elif not was_refused:
        _leave_unseen(turn, body)


def reject_malformed(turn: Turn) -> None:
    """A USER_NEW whose lines do not add up was refused. The end of its session, which may say a stream of ours, is none."""
    for line in turn.trigger.body.decode(errors="replace").split("\n")[-2:]:
        if len(line) == SESSION_ID_CHARACTERS and line.isalnum():
            turn.state.refused_viewers.put(_refusal_key(line, turn.pid), RefusedViewer(turn.now_ms))


def end_stream(turn: Turn, stream: StreamPolicy) -> None:
    """STREAM_END: no session of any kind is left, so what is still open was lost."""
    for viewing in turn.state.viewings:
        if viewing.subject.aggregate_id == stream.stream_id and viewing.joined_ms <= turn.trigger.unix_ms:
            conclude(turn, viewing, ViewerEnd.STREAM_ENDED)


def conclude_all(turn: Turn) -> None:
    """SYSTEM_START: sessions of before are gone, or will be said again."""
    for viewing in turn.state.viewings:
        conclude(turn, viewing, ViewerEnd.NODE_RESTARTED)
    turn.state.refused_viewers.clear()


def conclude(
    turn: Turn, viewing: Viewing, reason: ViewerEnd, *, figures: Figures | None = None, evidence: str | None = None
) -> None:
    """Ends a viewing of which the media server says no more. Of its length and bytes what its API said last is known, if any."""
    if viewing.concluded_ms is not None:
        return
    known = figures or turn.state.figures_of(str(viewing.viewing_id)) or viewing.last or Figures()
    turn.say(
        ViewerLeft(
            node_id=turn.node.node_id,
            session_id=viewing.session_id,
            viewing_id=viewing.viewing_id,
            connector=viewing.connector,
            country=viewing.country,
            joined_at=turn.moment(viewing.joined_ms),
            seconds=known.seconds,
            up_bytes=known.up_bytes,
            down_bytes=known.down_bytes,
            end_reason=reason,
            synthesized=True,
            evidence=evidence,
        ),
        viewing.subject,
        correlation=viewing.first_event,
        part=viewing.viewing_id,
    )
    turn.state.put_viewing(replace(viewing, concluded_ms=turn.now_ms, last=known))


def _join(
    turn: Turn,
    body: UserNew,
    stream: StreamPolicy,
    allowed: Allowed,
    *,
    joined_ms: int | None = None,
    evidence: str | None = None,
) -> Viewing:
    found = _found_before(turn, body.session_id)
    for earlier in turn.state.viewings_of_session(body.session_id):
        if earlier is not found:
            conclude(turn, earlier, ViewerEnd.SUPERSEDED)
    ended = turn.state.ended_unseen.drop(_refusal_key(body.session_id, turn.pid))
    viewing_id = found.viewing_id if found else ended.part_id if ended else turn.derived("viewing")
    country = turn.country_of(body.address)
    named = allowed.viewer or _named(body, stream)
    who = viewer(stream.tenant_id, named, turn.now_ms)
    event_id = turn.say(
        ViewerJoined(
            node_id=turn.node.node_id,
            session_id=body.session_id,
            viewing_id=viewing_id,
            connector=body.connector,
            country=country,
            address=turn.sealed(who, body.address, ViewerJoined, "address"),
            subject=turn.sealed(who, named or "", ViewerJoined, "subject"),
            viewer_day=turn.sealer.viewer_day(stream.tenant_id, named or body.address, turn.now_ms),
            policy_version=stream.version,
            tenant_policy_version=turn.tenant_version(stream.tenant_id),
            basis=allowed.basis,
            synthesized=evidence is not None,
            evidence=evidence,
        ),
        subject_of(stream),
    )
    turn.state.refused_viewers.drop(_refusal_key(body.session_id, turn.pid))
    viewing = Viewing(
        subject=subject_of(stream),
        viewing_id=viewing_id,
        session_id=body.session_id,
        pid=turn.trigger.pid,
        connector=body.connector,
        country=country,
        joined_ms=turn.trigger.unix_ms if joined_ms is None else joined_ms,
        first_event=event_id,
        is_found=evidence is not None,
        last=turn.state.figures_of(str(found.viewing_id)) or found.last if found else None,
    )
    if ended is None:  # else its end was heard before its beginning: it is over
        turn.state.put_viewing(viewing)
    return viewing


def _found_before(turn: Turn, session_id: str) -> Viewing | None:
    """The open viewing that the API told of while this USER_NEW was on its way. One that begins later is another."""
    known = turn.state.viewings_of_session(session_id)
    return next((v for v in known if v.is_open and v.is_found and turn.trigger.unix_ms <= v.joined_ms + LATE_MS), None)


def _refuse(turn: Turn, body: UserNew, stream: StreamPolicy | None, denied: Denied) -> None:
    turn.state.refused_viewers.put(_refusal_key(body.session_id, turn.pid), RefusedViewer(turn.now_ms))
    of = subject_of(stream) if stream else turn.node.subject
    # One that the API told of while its USER_NEW waited for an answer ends by that answer, too.
    known = turn.state.viewings_of_session(body.session_id)
    cut = [v for v in known if v.is_open and (body.is_recheck or v.is_found)]
    if body.is_recheck and not cut:
        return  # asked again although it was refused, or cut, before
    viewing_id: UUID | None = None
    for viewing in cut:
        viewing_id = viewing.viewing_id
        conclude(turn, viewing, ViewerEnd.REVOKED)
    named = _named(body, stream)
    who = viewer(of.tenant_id, named, turn.now_ms)
    turn.say(
        ViewerRejected(
            node_id=turn.node.node_id,
            session_id=body.session_id,
            connector=body.connector,
            reason=denied.reason,
            address=turn.sealed(who, body.address, ViewerRejected, "address"),
            subject=turn.sealed(who, named or "", ViewerRejected, "subject"),
            policy_version=stream.version if stream else 0,
            tenant_policy_version=turn.tenant_version(of.tenant_id),
            detail=denied.message,
            viewing_id=viewing_id,
        ),
        of,
    )


def _named(body: UserNew, stream: StreamPolicy | None) -> str | None:
    names = {body.stream, body.stream.removeprefix(LIVE)} | (names_of(stream) if stream else frozenset())
    return subject_of_token(body.token, body.url, frozenset(names))


def _of(turn: Turn, session_id: str) -> Viewing | None:
    """The viewing that a USER_END from this process ends. USER_NEW and USER_END come from the same process."""
    known = turn.state.viewings_of_session(session_id)
    still_open = [v for v in known if v.concluded_ms is None]
    same_process = [v for v in (*still_open, *known) if v.pid == turn.trigger.pid]
    return next(iter((*same_process, *still_open)), None)


def _leave(turn: Turn, viewing: Viewing, body: UserEnd) -> None:
    turn.say(
        ViewerLeft(
            node_id=turn.node.node_id,
            session_id=viewing.session_id,
            viewing_id=viewing.viewing_id,
            connector=body.connectors,
            country=viewing.country,
            joined_at=turn.moment(viewing.joined_ms),
            seconds=body.seconds,
            up_bytes=body.up_bytes,
            down_bytes=body.down_bytes,
            end_reason=ViewerEnd.DISCONNECTED,
        ),
        viewing.subject,
        correlation=viewing.first_event,
        part=viewing.viewing_id,
    )


def _leave_unseen(turn: Turn, body: UserEnd) -> None:
    """The end of a session whose beginning was lost (or never asked: a viewer whom the media server trusts by itself)."""
    stream = next(filter(None, map(turn.policy.by_media_name, body.streams)), None)
    if stream is None:
        return  # refused, or of the operator's own streams
    viewing_id = turn.derived("viewing")
    turn.state.ended_unseen.put(_refusal_key(body.session_id, turn.pid), EndedUnseen(viewing_id, turn.now_ms))
    turn.say(
        ViewerLeft(
            node_id=turn.node.node_id,
            session_id=body.session_id,
            viewing_id=viewing_id,
            connector=body.connectors,
            seconds=body.seconds,
            up_bytes=body.up_bytes,
            down_bytes=body.down_bytes,
            end_reason=ViewerEnd.DISCONNECTED,
        ),
        subject_of(stream),
    )


def _refusal_key(session_id: str, pid: str) -> str:
    return f"{session_id} {pid}"
