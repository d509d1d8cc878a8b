"""Publishers: admission by stream key. What becomes of one who is admitted is in `ingests.py`.

Invariant: a stream has at most one publisher on this node; a refused connection makes exactly one fact. Whether another node has
a publisher the platform says; where it does not answer in time, what is known here decides, and the fact says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final, assert_never
from urllib.parse import urlsplit
from uuid import UUID

from edge_agent import ingests
from edge_agent.admission import is_revoked, refusal_now
from edge_agent.bodies import PushRewrite, RtmpPushRewrite, StreamPush
from edge_agent.node_state import PENDING_MS, REFUSAL_MS, Admission, Refusal
from edge_agent.personal import publisher
from edge_agent.policy import LIVE, Verdict
from edge_agent.questions import AskLease
from edge_agent.redact import digest, redacted_key
from edge_agent.turn import Turn, subject_of
from streams.generated import IngestLease, IngestRejected, IngestRejection, StreamPolicy
from streams.ingress.lease import LeaseOutcome

REFUSED: Final = ""
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
    ingests.start(turn, admission, protocol, body.address)
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
            ingests.settle_lost(turn, verdict.stream)
        reject(turn, verdict, offered, protocol, address)
        return None
    stream, own = verdict.stream, turn.state.admissions.get(turn.pid)
    if own and own.ingest_id and own.subject == subject_of(stream) and own.opened_ms > turn.now_ms - PENDING_MS:
        leased = Leased(own.ingest_id, own.lease)  # the trigger before, of the same connection, asked
    else:
        leased = ask_lease(turn, stream)
    ingests.settle_lost(turn, stream)
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
