"""Ingests: each publishing from its start to its end.

Invariant: what started ends once, said by the media server or, where it never says it, concluded from what it did say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edge_agent import relays
from edge_agent.bodies import OutputEnd, PushInputClose
from edge_agent.node_state import Admission, EndedUnseen, Figures, Ingest
from edge_agent.personal import publisher
from edge_agent.policy import LIVE
from edge_agent.redact import redacted_text
from edge_agent.turn import Turn, subject_of
from streams.generated import IngestEnded, IngestStarted, StreamPolicy

LISTED_ON_MS: Final = 30_000  # longer than the API lists a publisher that has left
SOURCE_LOST: Final = "SOURCE_LOST"


def settle_lost(turn: Turn, stream: StreamPolicy) -> None:
    """Ends what another publisher's coming proves to be over."""
    conclude_lost(turn, stream)
    earlier = turn.state.ingests.get(turn.pid)
    if earlier and earlier.concluded_ms is None:  # a process publishes once: its number came again, its end was never said
        conclude(turn, turn.pid, earlier)


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
    if stream:
        relays.forget(turn, stream)
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
    """Ends a publisher of whom the media server says no more. It ended when its API last listed it, if that is known: whatever
    proves that it is over, such as the next one who comes, may be late."""
    if figures is None and (figures := turn.state.figures_of(ingest.watch_key) or ingest.last):
        seen_ms = max(figures.seen_ms, ingest.started_ms)
        turn = turn.about(ingest.watch_key, pid=turn.trigger.pid, at_ms=min(seen_ms, turn.trigger.unix_ms))
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
