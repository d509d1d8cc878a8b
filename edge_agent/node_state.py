"""What is open on this node: publishers, viewers, pushes, and what was said about them a moment ago.

Invariant: whatever was opened is closed once for good. What was closed by conclusion (the media server never said it) stays
known for hours, so that a late word of the media server is still attributed to it, under the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from edge_agent.counts import Counts, Said
from edge_agent.shelf import Changes, Shelf
from streams.generated import EdgeAction, IngestLease, NodeMode, PushKind, PushTargetState
from streams.privacy.envelope import Envelope

PENDING_MS: Final = 30_000  # an admitted publisher that has not come this far by then has gone
REFUSAL_MS: Final = 600_000  # a pid that was refused and never closed its connection
REFUSED_VIEWER_MS: Final = 1_800_000  # the end of a refused session comes 10 minutes later, or 20 (CONTRACT 6.5)
CONCLUDED_VIEWING_MS: Final = 6 * 3_600_000
CONCLUDED_MS: Final = 48 * 3_600_000  # publishers and pushes are few, and may go on for days after a crash of the controller
RESULT_MS: Final = 600_000
RELAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose a fact is and what it is about."""

    tenant_id: UUID
    aggregate_id: UUID


@dataclass(frozen=True, slots=True)
class Admission:
    """A publisher with a good key, on its way to its buffer. By pid."""

    subject: Subject
    internal_name: str
    key_prefix: str | None
    opened_ms: int
    ingest_id: UUID | None = None  # that it was admitted under, and that the platform's lease is for
    lease: IngestLease = IngestLease.NOT_ASKED


@dataclass(frozen=True, slots=True)
class Refusal:
    """A connection that was refused: it makes no further fact. By pid."""

    offered_digest: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Ingest:
    """A publisher. By pid."""

    subject: Subject
    ingest_id: UUID
    internal_name: str
    protocol: str
    started_ms: int
    first_event: UUID
    is_lost: bool = False  # its buffer is gone: it no longer stands in the way of another
    key_prefix: str | None = None  # of the key that it was admitted by: when that is revoked, it is dropped
    concluded_ms: int | None = None  # when we concluded its end, where the media server had not said it
    last: Figures | None = None  # what the API said a while ago: all that is left when agent and server died together

    @property
    def watch_key(self) -> str:
        """What it is looked for by in the media server's API (`mist/presence.py`)."""
        return f"ingest {self.ingest_id}"


@dataclass(frozen=True, slots=True)
class Figures:
    """What the API last said of something that is open."""

    seconds: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    seen_ms: int = 0


@dataclass(frozen=True, slots=True)
class Viewing:
    """One session of a viewer, from USER_NEW to USER_END. By viewing id."""

    subject: Subject
    viewing_id: UUID
    session_id: str
    pid: int
    connector: str
    country: str | None
    joined_ms: int
    first_event: UUID
    concluded_ms: int | None = None
    is_found: bool = False  # no trigger told of it: the media server's API did
    last: Figures | None = None  # what the API said of it last, as far as it was kept

    @property
    def is_open(self) -> bool:
        return self.concluded_ms is None


@dataclass(frozen=True, slots=True)
class RefusedViewer:
    """A session that was refused, whose USER_END is therefore none. By session id and pid."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Push:
    """A push or recording. By push id."""

    subject: Subject
    push_id: UUID
    stream: str
    target: str  # redacted
    target_digest: str  # of the target as asked
    resolved_digest: str  # with $stream and $wildcard replaced: how a push into this very node is recognised
    started_ms: int
    first_event: UUID
    pid: int | None = None  # once something told it
    concluded_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PushResult:
    """Last words of a push process. By pid."""

    sent_bytes: int
    seconds: int
    media_ms: int
    code: str
    text: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Whether a stream's buffer was last heard of as full or as empty. By stream id."""

    is_live: bool
    since_ms: int | None = None  # when it was told to have gone live


@dataclass(frozen=True, slots=True)
class Relay:
    """A stream whose source the balancer was named as, so that it comes from another node if it comes. By stream id."""

    asked_ms: int  # when somebody last wanted it here, to the hour
    is_running: bool = False  # whether it was told to have started


@dataclass(frozen=True, slots=True)
class Action:
    """Something that the policy wants done at the media server, and that is not known to be done. By request id."""

    request_id: UUID
    action: EdgeAction
    subject: Subject
    stream: str  # as the media server calls it
    policy_version: int
    asked_ms: int
    session_id: str | None = None  # of STOP_VIEWER
    ingest_id: UUID | None = None  # of DROP_PUBLISHER
    until_ms: int | None = None  # when it is not worth doing any more
    sent_ms: int | None = None  # when the media server last took it
    tries: int = 0  # how often the media server took it
    is_acknowledged: bool = False  # it was said that it waits
    is_once: bool = False  # of STOP_STREAM: who was there when it was asked for is cut, not who comes later


@dataclass(frozen=True, slots=True)
class Task:
    """A push or recording that the platform wants here, or that still has to end. By target id."""

    target_id: UUID
    kind: PushKind
    request_id: UUID
    subject: Subject
    stream: str  # as the media server calls it
    state: PushTargetState
    since_ms: int
    policy_version: int = 0
    digest: str = ""  # of the target that the media server was asked for, or that was found there
    attempt: int = 0
    reason: str | None = None
    retry_ms: int | None = None
    pid: int | None = None
    sent_bytes: int | None = None
    asked_ms: int | None = None  # when the media server was last asked to start or end it
    active_ms: int | None = None  # since when media goes there
    missed_ms: int | None = None  # since when it is not in the media server's list
    ended_ms: int | None = None  # when the media server said that it ended,
    ended_pid: int | None = None  # which process,
    ended: str | None = None  # and why
    said_ms: int = 0  # time of the newest fact about it
    is_foreign: bool = False  # somebody else started it
    is_ending: bool = False  # the media server was asked to end it
    is_done: bool = False  # what became of the request was reported


@dataclass(frozen=True, slots=True)
class ModeChange:
    """The mode that the node is in, or on its way to. By the name `node`."""

    request_id: UUID
    mode: NodeMode
    since_ms: int
    is_done: bool = False
    asked_ms: int | None = None  # when the media server was last asked to end what runs


@dataclass(frozen=True, slots=True)
class ServerStart:
    """When the media server's controller last started, as far as it was heard or seen. By the name `controller`."""

    at_ms: int
    instance: str  # empty: not known yet


@dataclass(frozen=True, slots=True)
class EndedUnseen:
    """The end of a session or publisher whose beginning was not heard: it may still come, late. By session or pid."""

    part_id: UUID
    at_ms: int


CONTROLLER: Final = "controller"


class NodeState:
    """All shelves, what changed on them, and the ways to find things."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.admissions = Shelf("admissions", Admission, self.changes, group_of=lambda admission: admission.subject.aggregate_id)
        self.refusals = Shelf("refusals", Refusal, self.changes)
        self.ingests = Shelf("ingests", Ingest, self.changes, group_of=lambda ingest: ingest.subject.aggregate_id)
        self.viewings = Shelf("viewings", Viewing, self.changes)
        self.refused_viewers = Shelf("refused_viewers", RefusedViewer, self.changes)
        self.pushes = Shelf("pushes", Push, self.changes)
        self.push_results = Shelf("push_results", PushResult, self.changes)
        self.broadcasts = Shelf("broadcasts", Broadcast, self.changes)
        self.relays = Shelf("relays", Relay, self.changes)
        self.envelopes = Shelf("envelopes", Envelope, self.changes)  # data keys that the platform does not have yet
        self.said = Shelf("said", Said, self.changes)
        self.counts = Counts(self.said)
        self.actions = Shelf("actions", Action, self.changes)
        self.tasks = Shelf("tasks", Task, self.changes)
        self.modes = Shelf("modes", ModeChange, self.changes)
        self.server_starts = Shelf("server_starts", ServerStart, self.changes)
        self.ended_unseen = Shelf("ended_unseen", EndedUnseen, self.changes)
        # Of an open viewing by its id, of a publisher by its `watch_key`: what the API said last. On the disk now and then only.
        self.figures_of: Callable[[str], Figures | None] = lambda _what: None
        self._by_session: dict[str, list[str]] = {}
        self._open_by_stream: dict[UUID, set[str]] = {}

    def load(self, rows: Iterable[tuple[str, str, bytes]]) -> None:
        """Takes in (shelf, key, value) rows as the journal kept them."""
        shelves: Mapping[str, Shelf[Admission] | Shelf[Viewing]] = {
            s.name: s  # type: ignore[misc]  # shelves of different kinds; each decodes its own
            for s in (
                self.admissions,
                self.refusals,
                self.ingests,
                self.viewings,
                self.refused_viewers,
                self.pushes,
                self.push_results,
                self.broadcasts,
                self.relays,
                self.envelopes,
                self.said,
                self.actions,
                self.tasks,
                self.modes,
                self.server_starts,
                self.ended_unseen,
            )
        }
        for shelf, key, value in rows:
            shelves[shelf].load(key, value)
        for viewing in self.viewings:
            self._by_session.setdefault(viewing.session_id, []).append(str(viewing.viewing_id))
            self._count(viewing, is_open=viewing.is_open)

    def put_viewing(self, viewing: Viewing) -> None:
        key = str(viewing.viewing_id)
        if self.viewings.get(key) is None:
            self._by_session.setdefault(viewing.session_id, []).append(key)
        self.viewings.put(key, viewing)
        self._count(viewing, is_open=viewing.is_open)

    def drop_viewing(self, viewing: Viewing) -> None:
        key = str(viewing.viewing_id)
        self.viewings.drop(key)
        self._count(viewing, is_open=False)
        keys = self._by_session.get(viewing.session_id, [])
        if key in keys:
            keys.remove(key)
        if not keys:
            self._by_session.pop(viewing.session_id, None)

    def viewings_of_session(self, session_id: str) -> list[Viewing]:
        """Of one session id, oldest first, those that were closed by conclusion included."""
        found = (self.viewings.get(key) for key in self._by_session.get(session_id, ()))
        return [viewing for viewing in found if viewing is not None]

    def open_viewings(self, stream_id: UUID) -> list[Viewing]:
        found = (self.viewings.get(key) for key in self._open_by_stream.get(stream_id, ()))
        return [viewing for viewing in found if viewing is not None]

    def viewers(self, stream_id: UUID, *, but_session: str | None = None) -> int:
        """Open viewings of a stream; those of one session not counted."""
        is_counted = len(self._open_by_stream.get(stream_id, ()))
        own = (v for v in self.viewings_of_session(but_session or "") if v.is_open and v.subject.aggregate_id == stream_id)
        return is_counted - sum(1 for _ in own)

    def _count(self, viewing: Viewing, *, is_open: bool) -> None:
        stream_id, key = viewing.subject.aggregate_id, str(viewing.viewing_id)
        if is_open:
            self._open_by_stream.setdefault(stream_id, set()).add(key)
            return
        found = self._open_by_stream.get(stream_id, set())
        found.discard(key)
        if not found:
            self._open_by_stream.pop(stream_id, None)

    def open_ingests(self, stream_id: UUID) -> list[tuple[str, Ingest]]:
        """(pid, ingest) of a stream, those whose end was concluded excluded."""
        return [(pid, ingest) for pid, ingest in self.ingests.of_group(stream_id) if ingest.concluded_ms is None]

    def sweep(self, now_ms: int) -> None:
        """Forgets what has waited longer than anything could still be said about it."""

        def is_past(at_ms: int, keep_ms: int) -> bool:
            """Also of what lies in the future: somebody set the clock back, and it would wait for ever."""
            return abs(now_ms - at_ms) > keep_ms

        self.admissions.drop_where(lambda a: is_past(a.opened_ms, PENDING_MS))
        self.refusals.drop_where(lambda r: is_past(r.at_ms, REFUSAL_MS))
        self.refused_viewers.drop_where(lambda v: is_past(v.at_ms, REFUSED_VIEWER_MS))
        self.ended_unseen.drop_where(lambda e: is_past(e.at_ms, RESULT_MS))
        self.push_results.drop_where(lambda r: is_past(r.at_ms, RESULT_MS))
        self.relays.drop_where(lambda r: not r.is_running and is_past(r.asked_ms, RELAY_MS))
        self.counts.sweep(now_ms)
        self.ingests.drop_where(lambda i: i.concluded_ms is not None and i.concluded_ms < now_ms - CONCLUDED_MS)
        self.pushes.drop_where(lambda p: p.concluded_ms is not None and p.concluded_ms < now_ms - CONCLUDED_MS)
        for viewing in self.viewings:
            if viewing.concluded_ms is not None and viewing.concluded_ms < now_ms - CONCLUDED_VIEWING_MS:
                self.drop_viewing(viewing)
