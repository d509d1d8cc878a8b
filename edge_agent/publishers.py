"""Publishers: admission by stream key, and each publishing from its start to its end.

Invariant: a stream has at most one publisher on this node; a refused connection makes exactly one fact; what started ends
once, said by the media server or, where it never says it, concluded from what it did say. Whether another node has a publisher
the platform says; where it does not answer in time, what is known here decides, and the fact says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final, assert_never
from urllib.parse import urlsplit
from uuid import UUID

from edge_agent.admission import is_revoked, refusal_now
from edge_agent.bodies import OutputEnd, PushInputClose, PushRewrite, RtmpPushRewrite, StreamPush
from edge_agent.node_state import PENDING_MS, REFUSAL_MS, Admission, EndedUnseen, Figures, Ingest, Refusal
from edge_agent.personal import publisher
from edge_agent.policy import LIVE, Verdict
from edge_agent.questions import AskLease
from edge_agent.redact import digest, redacted_key, redacted_text
from edge_agent.turn import Turn, subject_of
from streams.generated import IngestEnded, IngestLease, IngestRejected, IngestRejection, IngestStarted, StreamPolicy
from streams.ingress.lease import LeaseOutcome

REFUSED: Final = ""
LISTED_ON_MS: Final = 30_000  # longer than the API lists a publisher that has left
SOURCE_LOST: Final = "SOURCE_LOST"
# MistServer's connectors and the schemes of its URLs, as the field calls what publishers speak
PROTOCOLS: Final = {"TSSRT": "SRT", "WEBRTC": "WHIP"}


def rtmp_push_rewrite(turn: Turn, body: RtmpPushRewrite) -> str:
    """The URL unchanged, or nothing: then the publisher is refused (CONTRACT 2.3)."""
    name = last_path_part(body.url)
    if is_own_push(turn, body.url, body.address, name):
        return body.url
    return body.url if admit(turn, name, "RTMP", body.address) else REFUSED


def push_rewrite(turn: Turn, body: PushRewrite) -> str:
    """`live+` and the internal name, or nothing: then the publisher is refused (CONTRACT 2.3)."""
    if is_own_push(turn, body.url, body.address, body.name):
        return body.name
    admission = admit(turn, body.name, protocol_of(body.url), body.address)
    return f"{LIVE}{admission.internal_name}" if admission else REFUSED


def stream_push(turn: Turn, body: StreamPush) -> str:
    """The last chance to refuse; whoever passes it is on the air."""
    pid = turn.pid
    if turn.state.refusals.get(pid):
        return "false"
    if not body.stream.startswith(LIVE):
        return "true"
    stream, protocol = turn.policy.by_media_name(body.stream), PROTOCOLS.get(body.connector.upper(), body.connector)
    if stream is None:
        reject(turn, Verdict(None, None, IngestRejection.UNKNOWN_KEY), last_path_part(body.url), protocol, body.address)
        return "false"
    ingest = turn.state.ingests.get(pid)
    if ingest and ingest.concluded_ms is None and ingest.subject.aggregate_id == stream.stream_id:
        return "true"
    admission = turn.state.admissions.get(pid)
    if admission is None or admission.subject.aggregate_id != stream.stream_id:
        # Nothing was said of this connection before, as when the agent came up in between: its URL still has the key.
        admission = admit(turn, last_path_part(body.url), protocol, body.address)
        if admission is None:
            return "false"
    refused = refusal_now(turn, stream)
    if refused is None and is_revoked(stream, admission.key_prefix, admission.opened_ms):
        refused = IngestRejection.KEY_EXPIRED  # while the publisher was on its way
    if refused:
        verdict = Verdict(stream, admission.key_prefix, refused)
        reject(turn, verdict, last_path_part(body.url), protocol, body.address)
        return "false"
    start(turn, admission, protocol, body.address)
    return "true"


def admit(turn: Turn, offered: str, protocol: str, address: str) -> Admission | None:
    """Opens the way for a publisher with a good key to a stream that nobody publishes; None: refused, and recorded so."""
    offered = offered.partition("?")[0]  # parameters of a URL are no part of a key
    refusal = turn.state.refusals.get(turn.pid)
    if refusal and refusal.at_ms > turn.now_ms - REFUSAL_MS and refusal.offered_digest == digest(offered):
        return None
    if not turn.policy.is_known:
        turn.remarks.append("refused a publisher: no policy was ever received, so no key is known")
        reject(turn, Verdict(None, None, IngestRejection.OTHER), offered, protocol, address)
        return None
    verdict = judged(turn, offered)
    if verdict.stream is None or verdict.refusal is not None:
        if verdict.stream and verdict.refusal is IngestRejection.DUPLICATE_INGEST:
            settle_lost(turn, verdict.stream)
        reject(turn, verdict, offered, protocol, address)
        return None
    stream, own = verdict.stream, turn.state.admissions.get(turn.pid)
    if own and own.ingest_id and own.subject == subject_of(stream) and own.opened_ms > turn.now_ms - PENDING_MS:
        leased = Leased(own.ingest_id, own.lease)  # the trigger before, of the same connection, asked
    else:
        leased = ask_lease(turn, stream)
    settle_lost(turn, stream)
    if leased.refusal is not None:
        reject(turn, replace(verdict, refusal=leased.refusal), offered, protocol, address, held_by=leased.held_by)
        return None
    admission = Admission(
        subject_of(stream), stream.internal_name, verdict.key_prefix, turn.now_ms, leased.ingest_id, leased.lease
    )
    turn.state.refusals.drop(turn.pid)
    turn.state.admissions.put(turn.pid, admission)
    return admission


def judged(turn: Turn, offered: str) -> Verdict:
    """What is known here of an offered key: whose it is, and why it does not open the stream, if it does not."""
    verdict = turn.policy.verdict(offered, turn.now_ms)
    if verdict.stream is None:
        is_stale = verdict.refusal is IngestRejection.UNKNOWN_KEY and turn.is_policy_stale
        return replace(verdict, refusal=IngestRejection.POLICY_STALE) if is_stale else verdict  # it may be newer
    if verdict.refusal is None and is_taken(turn, verdict.stream):
        # Its own reasons come first: who publishes a disabled stream twice is told that it is disabled.
        return replace(verdict, refusal=refusal_now(turn, verdict.stream) or IngestRejection.DUPLICATE_INGEST)
    if verdict.refusal is None:
        return replace(verdict, refusal=refusal_now(turn, verdict.stream) or limit_reached(turn, verdict.stream))
    return verdict


@dataclass(frozen=True, slots=True)
class Leased:
    """What the platform said to a publisher, or that it did not."""

    ingest_id: UUID
    lease: IngestLease
    refusal: IngestRejection | None = None
    held_by: str | None = None


def ask_lease(turn: Turn, stream: StreamPolicy) -> Leased:
    """Unanswered: the platform has to be asked first."""
    ingest_id = turn.derived("ingest")
    if not turn.site.asks_lease:
        return Leased(ingest_id, IngestLease.NOT_ASKED)
    answer = turn.lease(AskLease(stream.stream_id, ingest_id))
    match answer.outcome:
        case LeaseOutcome.GRANTED:
            return Leased(ingest_id, IngestLease.GRANTED)
        case LeaseOutcome.UNREACHABLE:
            turn.remarks.append("admitted a publisher by what is known here: the platform did not answer in time")
            return Leased(ingest_id, IngestLease.UNREACHABLE)
        case LeaseOutcome.DENIED if answer.held_by == turn.node.node_id:
            # By a publisher of this node, of which the platform has not heard yet that it is gone. It is known here.
            return Leased(ingest_id, IngestLease.HELD_HERE)
        case LeaseOutcome.DENIED:
            reason = IngestRejection.DUPLICATE_INGEST if answer.held_by else IngestRejection.STREAM_LIMIT_REACHED
            return Leased(ingest_id, IngestLease.OTHER, reason, answer.held_by)
        case _:
            assert_never(answer.outcome)


def settle_lost(turn: Turn, stream: StreamPolicy) -> None:
    """Ends what another publisher's coming proves to be over."""
    conclude_lost(turn, stream)
    earlier = turn.state.ingests.get(turn.pid)
    if earlier and earlier.concluded_ms is None:  # a process publishes once: its number came again, its end was never said
        conclude(turn, turn.pid, earlier)


def limit_reached(turn: Turn, stream: StreamPolicy) -> IngestRejection | None:
    """The tenant's limit, as far as this node alone sees it: the platform counts all nodes when it is asked for the lease."""
    tenant = turn.policy.tenant(stream.tenant_id)
    if tenant is None or tenant.max_live_streams is None:
        return None
    live = (i for pid, i in turn.state.ingests.items() if pid != turn.pid and i.concluded_ms is None and not i.is_lost)
    pending = (other for pid, other in turn.state.admissions.items() if _is_pending(turn, pid, other))
    subjects = (*(ingest.subject for ingest in live), *(other.subject for other in pending))
    others = {s.aggregate_id for s in subjects if s.tenant_id == stream.tenant_id} - {stream.stream_id}
    return IngestRejection.STREAM_LIMIT_REACHED if len(others) >= tenant.max_live_streams else None


def _is_pending(turn: Turn, pid: str, admission: Admission) -> bool:
    """Whether another connection is on its way in."""
    return pid != turn.pid and admission.opened_ms > turn.now_ms - PENDING_MS


def is_taken(turn: Turn, stream: StreamPolicy) -> bool:
    """Whether another connection publishes to the stream, or is about to."""
    if any(pid != turn.pid and not ingest.is_lost for pid, ingest in turn.state.open_ingests(stream.stream_id)):
        return True
    return any(_is_pending(turn, pid, other) for pid, other in turn.state.admissions.of_group(stream.stream_id))


def reject(turn: Turn, verdict: Verdict, offered: str, protocol: str, address: str, *, held_by: str | None = None) -> None:
    """Records that a connection was refused: once, whatever it goes on to send."""
    turn.state.admissions.drop(turn.pid)
    known = turn.state.refusals.get(turn.pid)
    turn.state.refusals.put(turn.pid, Refusal(digest(offered), turn.now_ms))
    if known and known.at_ms > turn.now_ms - REFUSAL_MS:
        return
    shown = f"sk_{verdict.key_prefix.removeprefix('sk_')}" if verdict.key_prefix else redacted_key(offered)
    of = subject_of(verdict.stream) if verdict.stream else turn.node.subject
    turn.say(
        IngestRejected(
            node_id=turn.node.node_id,
            protocol=protocol,
            reason=verdict.refusal or IngestRejection.OTHER,
            key_redacted=shown,
            address=turn.sealed(publisher(of.tenant_id, turn.now_ms), address, IngestRejected, "address"),
            policy_version=verdict.stream.version if verdict.stream else 0,
            tenant_policy_version=turn.tenant_version(of.tenant_id),
            held_by=held_by,
        ),
        of,
    )


def reject_malformed(turn: Turn) -> None:
    """A rewrite or push whose lines do not add up: somebody typed a newline into a key."""
    protocol = "RTMP" if turn.trigger.name == "RTMP_PUSH_REWRITE" else protocol_of(turn.trigger.body[:256].decode("latin-1"))
    reject(turn, Verdict(None, None, IngestRejection.MALFORMED_KEY), "", protocol, "")


def appear(turn: Turn, pid: str, stream: StreamPolicy, protocol: str, address: str, evidence: str) -> None:
    """Takes in a publisher of whom only the media server's API told: it came while nobody listened, or by a key of the server's
    own (CONTRACT 6.8)."""
    admission = turn.state.admissions.get(pid)
    if admission is None or admission.subject != subject_of(stream):
        admission = Admission(subject_of(stream), stream.internal_name, None, turn.now_ms)
    start(turn, admission, protocol, address, pid=pid, evidence=evidence)


def start(
    turn: Turn, admission: Admission, protocol: str, address: str, *, pid: str | None = None, evidence: str | None = None
) -> None:
    pid = turn.pid if pid is None else pid
    ingest_id = admission.ingest_id or turn.derived("ingest")
    stream = turn.policy.stream(admission.subject.aggregate_id)
    event_id = turn.say(
        IngestStarted(
            node_id=turn.node.node_id,
            ingest_id=ingest_id,
            internal_name=admission.internal_name,
            protocol=protocol,
            key_prefix=admission.key_prefix,
            address=turn.sealed(publisher(admission.subject.tenant_id, turn.now_ms), address, IngestStarted, "address"),
            policy_version=stream.version if stream else 0,
            tenant_policy_version=turn.tenant_version(admission.subject.tenant_id),
            lease=admission.lease,
            synthesized=evidence is not None,
            evidence=evidence,
        ),
        admission.subject,
    )
    turn.state.admissions.drop(pid)
    turn.state.ingests.put(
        pid,
        Ingest(
            subject=admission.subject,
            ingest_id=ingest_id,
            internal_name=admission.internal_name,
            protocol=protocol,
            started_ms=turn.trigger.unix_ms,
            first_event=event_id,
            key_prefix=admission.key_prefix,
        ),
    )
    known = turn.state.broadcasts.get(str(admission.subject.aggregate_id))
    if known and not known.is_live:
        turn.state.broadcasts.drop(str(admission.subject.aggregate_id))
    ended = turn.state.ended_unseen.drop(_ended_key(pid))
    started = turn.state.ingests.get(pid)
    if started and ended and ended.part_id == admission.subject.aggregate_id and turn.trigger.unix_ms <= ended.at_ms:
        conclude(turn, pid, started, evidence="its end was heard before its beginning")


def just_ended(turn: Turn, stream: StreamPolicy) -> bool:
    """Whether the end of a publisher of the stream was heard a moment ago whose beginning was not: it may be listed yet."""
    ends = (e for key, e in turn.state.ended_unseen.items() if key.startswith(_ended_key("")))
    return any(e.part_id == stream.stream_id and abs(turn.now_ms - e.at_ms) < LISTED_ON_MS for e in ends)


def _ended_key(pid: str) -> str:
    return f"publisher {pid}"


def output_end(turn: Turn, body: OutputEnd) -> None:
    """The end of a connection that published: OUTPUT_END without a target, from the process that was admitted."""
    close_connection(turn)
    ingest = turn.state.ingests.get(turn.pid)
    if ingest and body.stream == f"{LIVE}{ingest.internal_name}":
        end(turn, ingest, body.code, seconds=body.seconds, detail=body.text)
        turn.state.ingests.drop(turn.pid)
    elif stream := turn.policy.by_media_name(body.stream):
        turn.state.ended_unseen.put(_ended_key(turn.pid), EndedUnseen(stream.stream_id, turn.trigger.unix_ms))


def push_input_close(turn: Turn, body: PushInputClose) -> None:
    """The same, as the fork says it; whichever comes first ends the ingest."""
    pid = str(body.pid)
    ingest = turn.state.ingests.get(pid)
    if ingest and body.stream == f"{LIVE}{ingest.internal_name}":
        seconds = max(0, round((turn.trigger.unix_ms - ingest.started_ms) / 1000))
        end(turn, ingest, body.code, seconds=seconds, detail=body.text)
        turn.state.ingests.drop(pid)


def close_connection(turn: Turn) -> None:
    """CONN_CLOSE, OUTPUT_END: neither a pending admission nor a refusal outlives its connection."""
    turn.state.admissions.drop(turn.pid)
    turn.state.refusals.drop(turn.pid)


def open_connection(turn: Turn) -> None:
    """CONN_OPEN: whatever is known of this process number is of an older process. A publisher's comes before its key."""
    close_connection(turn)


def doubt(turn: Turn, stream: StreamPolicy) -> None:
    """STREAM_END: nobody is connected, so a publisher that is still open most likely left while nobody listened.

    It may also be that the media server's session processes crashed while it publishes on (CONTRACT section 3): so it no longer
    stands in the way of another, and only the next sign ends it.
    """
    conclude_lost(turn, stream)
    lose_source(turn, stream)


def lose_source(turn: Turn, stream: StreamPolicy) -> None:
    """The buffer of the stream is gone or new: publishers of before no longer stand in the way of others."""
    for pid, ingest in turn.state.open_ingests(stream.stream_id):
        if not ingest.is_lost and ingest.started_ms <= turn.trigger.unix_ms:
            turn.state.ingests.put(pid, replace(ingest, is_lost=True))


def conclude_lost(turn: Turn, stream: StreamPolicy) -> None:
    """Ends, by conclusion, the publishers of a stream whose buffer went without their end being said."""
    for pid, ingest in turn.state.open_ingests(stream.stream_id):
        if ingest.is_lost:
            conclude(turn, pid, ingest)


def conclude_all(turn: Turn) -> None:
    """The media server started anew: nothing of before can be relied on to be there, and nothing of it was said."""
    for pid, ingest in turn.state.ingests.items():
        if ingest.concluded_ms is None:
            conclude(turn, pid, ingest)
    turn.state.admissions.clear()
    turn.state.refusals.clear()


def lose_all(turn: Turn) -> None:
    """The media server started anew, and its API will tell who is still there: until then nobody stands in the way of another."""
    for pid, ingest in turn.state.ingests.items():
        if ingest.concluded_ms is None and not ingest.is_lost:
            turn.state.ingests.put(pid, replace(ingest, is_lost=True))
    turn.state.admissions.clear()
    turn.state.refusals.clear()


def conclude(turn: Turn, pid: str, ingest: Ingest, *, figures: Figures | None = None, evidence: str | None = None) -> None:
    end(turn, ingest, SOURCE_LOST, is_concluded=True, seconds=figures.seconds if figures else None, figures=figures,
        evidence=evidence)  # fmt: skip
    turn.state.ingests.put(pid, replace(ingest, is_lost=True, concluded_ms=turn.now_ms))


def end(
    turn: Turn,
    ingest: Ingest,
    reason: str,
    *,
    seconds: int | None = None,
    detail: str = "",
    is_concluded: bool = False,
    figures: Figures | None = None,
    evidence: str | None = None,
) -> None:
    turn.say(
        IngestEnded(
            node_id=turn.node.node_id,
            ingest_id=ingest.ingest_id,
            internal_name=ingest.internal_name,
            protocol=ingest.protocol,
            end_reason=reason,
            started_at=turn.moment(ingest.started_ms),
            seconds=seconds,
            received_bytes=figures.down_bytes if figures else None,
            end_detail=redacted_text(detail) or None,
            synthesized=is_concluded,
            evidence=evidence,
        ),
        ingest.subject,
        correlation=ingest.first_event,
        part=ingest.ingest_id,
    )


def is_own_push(turn: Turn, url: str, address: str, name: str) -> bool:
    """Whether this is MistServer pushing into itself (CONTRACT section 3, PUSH_REWRITE), to a name that is no stream of ours.

    It comes from this machine, while a push that it was asked to make to exactly this URL is open. Its stream is the
    operator's own affair: it is let through and makes no facts.
    """
    if name.startswith(LIVE) or redacted_key(name) or not _is_from_here(url, address):
        return False
    wanted = digest(url)
    return any(push.concluded_ms is None and wanted in (push.target_digest, push.resolved_digest) for push in turn.state.pushes)


def last_path_part(url: str) -> str:
    """Where RTMP publishers have their key; parameters behind it are not part of it."""
    return url.partition("?")[0].rpartition("/")[2]


def protocol_of(url: str) -> str:
    scheme = url.partition(":")[0].upper()
    if scheme in ("HTTP", "HTTPS") and "/webrtc/" in url:  # where MistServer takes WHIP
        return "WHIP"
    return PROTOCOLS.get(scheme, scheme) if scheme.isalpha() and len(scheme) <= 8 else "OTHER"


def _is_from_here(url: str, address: str) -> bool:
    try:
        return ip_address(address).is_loopback or address == urlsplit(url).hostname
    except ValueError:
        return False
