"""What is open here, compared with what the media server's API lists: what was lost is ended, what was never told is opened.

Invariants:
* Nothing here asks the network or a clock: a `Sight` comes in, facts and changes of state come out, in one transaction.
* What the media server says by a trigger wins: an end that was concluded gives way to its late word, under the same id; a session
  that was found is adopted by the USER_NEW that was still on its way.
* A session whose counters go on where a concluded viewing stopped is that viewing, and is opened again under its id: nothing is
  counted twice. A viewer who was refused is never one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edge_agent import broadcasts, ingests, viewers
from edge_agent.mist import media_truth
from edge_agent.mist.clients import Client
from edge_agent.mist.presence import KEEP_MS, Presence, Stranger, Watch
from edge_agent.mist.sight import Sight
from edge_agent.node_state import CONTROLLER, Figures, ServerStart, Viewing
from edge_agent.turn import Turn
from streams.generated import ViewerEnd

KEEP_AT_ONCE: Final = 300  # of so many at one look
UNVERIFIED_MS: Final = 120_000  # after a start of the server without a look at it, its silence is believed


class Truth:
    """What was seen at the looks before."""

    def __init__(self) -> None:
        self._presence = Presence()
        self._instance: str | None = None
        self.found_total = self.lost_total = 0

    def compare(self, turn: Turn, sight: Sight, *, gap_ms: int) -> None:
        """One look. `gap_ms`: looks that lie further apart were interrupted."""
        is_new = self._instance is not None and sight.instance != self._instance
        self._presence.begin(sight.elapsed_ms, is_new_server=is_new, gap_ms=gap_ms)
        self._notice_start(turn, sight)
        self._instance = sight.instance
        turn.state.figures_of = self._figures_of
        watched: set[str] = set()
        strange: set[str] = set()
        self._viewings(turn, sight, watched, strange)
        counts = media_truth.compare(turn, sight, self._presence, watched, strange)
        self.lost_total += counts.lost
        self.found_total += counts.found
        self._presence.keep(watched, strange)

    def _figures_of(self, what: str) -> Figures | None:
        """Of a viewing by its id, of a publisher by its `watch_key`."""
        watch = self._presence.last_of(what)
        return watch.figures if watch else None

    @staticmethod
    def _notice_start(turn: Turn, sight: Sight) -> None:
        """Of a server whose SYSTEM_START was not heard; where it was, it did not know its instance yet."""
        known = turn.state.server_starts.get(CONTROLLER)
        if known is None:
            turn.state.server_starts.put(CONTROLLER, ServerStart(0, sight.instance))
        elif not known.instance and turn.now_ms - known.at_ms < UNVERIFIED_MS:
            turn.state.server_starts.put(CONTROLLER, replace(known, instance=sight.instance))
        elif known.instance != sight.instance:
            turn.state.server_starts.put(CONTROLLER, ServerStart(turn.now_ms, sight.instance))
            ingests.lose_all(turn)

    def _viewings(self, turn: Turn, sight: Sight, watched: set[str], strange: set[str]) -> None:
        listed = {client.sessid: client for client in sight.clients if client.is_viewer}
        strangers = set(listed)
        seen, elapsed_ms, at_ms, kept = self._presence.seen, sight.elapsed_ms, sight.at_ms, 0
        for key, viewing in turn.state.viewings.items():
            if viewing.concluded_ms is not None:
                continue
            watched.add(key)
            client = listed.get(viewing.session_id)
            if client is None:
                if gone := self._presence.missed(key, elapsed_ms):
                    self._lose(turn, sight, viewing, gone)
                continue
            strangers.discard(viewing.session_id)
            watch = seen(key, elapsed_ms, at_ms, client)
            if elapsed_ms - watch.kept_ms >= KEEP_MS and kept < KEEP_AT_ONCE:
                watch.kept_ms, kept = elapsed_ms, kept + 1
                turn.state.put_viewing(replace(viewing, last=watch.figures))
        for sessid in strangers:
            self._meet(turn, sight, listed[sessid], strange)

    def _lose(self, turn: Turn, sight: Sight, viewing: Viewing, watch: Watch) -> None:
        figures = watch.figures or viewing.last
        started = turn.state.server_starts.get(CONTROLLER)
        last_ms = max(viewing.joined_ms, figures.seen_ms if figures else 0)
        is_restart = started is not None and last_ms <= started.at_ms
        reason = ViewerEnd.NODE_RESTARTED if is_restart else ViewerEnd.NOT_LISTED
        seconds = (sight.elapsed_ms - watch.seen_ms) // 1000
        seen = (
            f"last seen {_at(figures.seen_ms)} with {figures.seconds} s and {figures.up_bytes} bytes" if figures else "never seen"
        )
        anew = f"; the media server started anew at {_at(started.at_ms)}" if started and is_restart else ""
        evidence = f"not listed in clients for {seconds} s; {seen}{anew}"
        about = turn.about(f"viewing {viewing.viewing_id}", pid=viewing.pid, at_ms=min(last_ms, turn.now_ms))
        viewers.conclude(about, viewing, reason, figures=figures, evidence=evidence)
        self.lost_total += 1

    def _meet(self, turn: Turn, sight: Sight, client: Client, strange: set[str]) -> None:
        """A session that is listed and not open here."""
        if turn.policy.by_media_name(client.stream) is None or viewers.is_peer(turn, client.protocol, client.host):
            return
        if viewers.is_past(turn, client.sessid):
            return
        key = f"session {client.sessid}"
        strange.add(key)
        there = self._presence.strange(key, sight.elapsed_ms, client.conntime, is_steady=False)
        if there is None:
            return
        strange.discard(key)
        figures = _figures(client, sight)
        if concluded := _same_session(turn, client):
            turn.state.put_viewing(replace(concluded, concluded_ms=None, last=figures))
        else:
            self._open(turn, sight, client, there)
        self.found_total += 1

    def _open(self, turn: Turn, sight: Sight, client: Client, there: Stranger) -> None:
        joined_ms = turn.now_ms - 1000 * client.conntime
        seconds = (sight.elapsed_ms - there.first_ms) // 1000
        evidence = f"listed in clients for {seconds} s, connected for {client.conntime} s; no USER_NEW was heard"
        found = viewers.FoundSession(client.sessid, client.stream, client.protocol, client.host, joined_ms, evidence)
        viewers.appear(turn.about(f"found {client.sessid}", at_ms=joined_ms), found)


def believe_silence(turn: Turn) -> None:
    """The server started anew and nobody could look at it since: what was open is ended as if it were never looked at."""
    broadcasts.conclude_all(turn)


def _same_session(turn: Turn, client: Client) -> Viewing | None:
    """The viewing that was concluded and goes on: counters of a session only grow, and those of a new one begin at nothing."""
    for viewing in reversed(turn.state.viewings_of_session(client.sessid)):
        last = viewing.last
        if last and last.seconds and client.conntime >= last.seconds and client.up >= last.up_bytes:
            return viewing
    return None


def _figures(client: Client, sight: Sight) -> Figures:
    return Figures(client.conntime, client.up, client.down, sight.at_ms)


def _at(unix_ms: int) -> str:
    return f"{Turn.moment(unix_ms):%Y-%m-%dT%H:%M:%SZ}"
