"""Every trigger of stock MistServer 3.10 and of the public fork: how it is read, handled and, when unreadable, answered.

Invariant: an unreadable body never opens a door. Rewrites of publishers are answered empty and STREAM_PUSH and USER_NEW
`false` (refused, CONTRACT 2.3); PLAY_REWRITE gets a name that no stream has, because an empty answer keeps an HLS viewer
hanging for 30 s; booleans that guard nothing of ours stay open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from edge_agent import bodies, broadcasts, ingests, media, processes, publishers, pushes, server, sources, viewers
from edge_agent.turn import Turn
from streams.errors import Invalid

B = TypeVar("B")
UNUSABLE_STREAM: Final = "unusable"


class Runnable(Protocol):
    """An entry whose kind of body does not matter."""

    @property
    def when_invalid(self) -> str: ...
    @property
    def is_answered(self) -> bool: ...
    @property
    def is_remembered(self) -> bool: ...
    @property
    def when_malformed(self) -> Callable[[Turn], None] | None: ...
    def run(self, turn: Turn) -> str: ...


@dataclass(frozen=True, slots=True)
class Entry(Generic[B]):
    """How one trigger is read and handled.

    `is_answered`: the media server acts on the answer, so it gets one at any cost. `is_remembered`: what comes of it hangs on
    what is open at that time, so a retry must find what was decided, also when nothing came of it.
    """

    parse: Callable[[bytes], B]
    handle: Callable[[Turn, B], str]
    when_invalid: str
    is_answered: bool = True
    is_remembered: bool = True
    when_malformed: Callable[[Turn], None] | None = None

    def run(self, turn: Turn) -> str:
        """Raises Invalid before anything was handled."""
        return self.handle(turn, self.parse(turn.trigger.body))


def always(answer: str) -> Callable[[Turn, object], str]:
    def handle(_turn: Turn, _body: object) -> str:
        return answer

    return handle


def then_true(handle: Callable[[Turn, B], None]) -> Callable[[Turn, B], str]:
    def handled(turn: Turn, body: B) -> str:
        handle(turn, body)
        return "true"

    return handled


def conn_open(turn: Turn, body: bodies.Connection) -> None:
    server.opened(turn, body)
    if not body.stream:  # first stage of a connection; the second comes from the same process and changes nothing
        ingests.open_connection(turn)


def conn_play(turn: Turn, body: bodies.Connection) -> str:
    server.played(turn, body)
    return viewers.conn_play(turn, body)


def conn_close(turn: Turn, body: bodies.Connection) -> None:
    server.closed(turn, body)
    ingests.close_connection(turn)


def user_end(turn: Turn, body: bodies.UserEnd) -> None:
    """Of a session that began, the end is certain even where a newline was typed into its token; else its stream is not."""
    if body.is_shifted and not turn.state.viewings_of_session(body.session_id):
        raise Invalid("more than 12 lines, of a session that nobody knows")
    viewers.user_end(turn, body)


def output_end(turn: Turn, body: bodies.OutputEnd) -> None:
    if body.target:
        pushes.output_end(turn, body)
    else:
        ingests.output_end(turn, body)


def _heard(parse: Callable[[bytes], B], handle: Callable[[Turn, B], None]) -> Entry[B]:
    """The media server waits for an answer, and nothing of ours depends on it."""
    return Entry(parse, then_true(handle), "true", is_remembered=False)


def _told(parse: Callable[[bytes], B], handle: Callable[[Turn, B], None]) -> Entry[B]:
    return Entry(parse, then_true(handle), "true", is_answered=False)


def _reported(parse: Callable[[bytes], B], handle: Callable[[Turn, B], None]) -> Entry[B]:
    """As told, but nothing hangs on what was before: where no fact comes of it there is nothing to remember."""
    return Entry(parse, then_true(handle), "true", is_answered=False, is_remembered=False)


CATALOGUE: Final[Mapping[str, Runnable]] = {
    "RTMP_PUSH_REWRITE": Entry(
        bodies.rtmp_push_rewrite, publishers.rtmp_push_rewrite, "", when_malformed=publishers.reject_malformed
    ),
    "PUSH_REWRITE": Entry(bodies.push_rewrite, publishers.push_rewrite, "", when_malformed=publishers.reject_malformed),
    "STREAM_PUSH": Entry(bodies.stream_push, publishers.stream_push, "false", when_malformed=publishers.reject_malformed),
    "PLAY_REWRITE": Entry(bodies.connection, viewers.play_rewrite, UNUSABLE_STREAM, is_remembered=False),
    "USER_NEW": Entry(bodies.user_new, viewers.user_new, "false", when_malformed=viewers.reject_malformed),
    "PUSH_OUT_START": Entry(bodies.push_out_start, pushes.push_out_start, ""),
    "STREAM_SOURCE": Entry(bodies.one_line, sources.stream_source, "", is_remembered=False),
    "STREAM_PROCESS": Entry(bodies.one_line, always(""), "", is_remembered=False),
    "DEFAULT_STREAM": Entry(server.default_stream, server.not_found, "", is_remembered=False),
    "STREAM_LOAD": Entry(bodies.one_line, then_true(broadcasts.new_buffer), "true"),
    "STREAM_READY": Entry(bodies.stream_ready, then_true(broadcasts.new_buffer), "true"),
    "STREAM_UNLOAD": Entry(bodies.stream_unload, then_true(broadcasts.new_buffer), "true"),
    "CONN_OPEN": _heard(bodies.connection, conn_open),
    "CONN_PLAY": Entry(bodies.connection, conn_play, "true", is_remembered=False),
    "STREAM_ADD": _heard(server.stream_entry, server.stream_add),
    "STREAM_CONFIG": _heard(server.stream_entry, server.stream_config),
    "STREAM_REMOVE": _heard(server.stream_removed, server.stream_remove),
    "LIVE_BANDWIDTH": _heard(server.live_bandwidth, server.bandwidth),
    "SYSTEM_START": Entry(bodies.one_line, then_true(broadcasts.system_start), "true"),
    "SYSTEM_STOP": Entry(bodies.one_line, then_true(broadcasts.system_stop), "true"),
    "CONN_CLOSE": Entry(
        bodies.connection,
        then_true(conn_close),
        "true",
        is_answered=False,
        is_remembered=False,
        when_malformed=ingests.close_connection,  # whatever was typed into its URL, the process is gone
    ),
    "CONN_STOP": _reported(bodies.connection, server.stopped),
    "OUTPUT_START": _reported(server.listener, server.output_start),
    "OUTPUT_STOP": _reported(server.listener, server.output_stop),
    "INPUT_ABORT": _reported(server.input_abort, server.aborted),
    "STREAM_BUFFER": _told(media.stream_buffer, broadcasts.stream_buffer),
    "LIVE_TRACK_LIST": _told(media.live_track_list, broadcasts.live_track_list),
    "STREAM_END": _told(bodies.stream_end, broadcasts.stream_end),
    "USER_END": _told(bodies.user_end, user_end),
    "PUSH_END": _told(bodies.push_end, pushes.push_end),
    "RECORDING_END": _told(bodies.recording_end, pushes.recording_end),
    "OUTPUT_END": _told(bodies.output_end, output_end),
    "LIVEPEER_SEGMENT_REJECTED": _reported(processes.segment_rejected, processes.rejected),
    # the fork's own (section 8)
    "PUSH_INPUT_CLOSE": _told(bodies.push_input_close, ingests.push_input_close),
    "RECORDING_SEGMENT": _reported(processes.recording_segment, processes.segment_written),
    "PROCESS_EXIT": _reported(processes.process_exit, processes.exited),
    "LIVEPEER_SEGMENT_COMPLETE": _reported(processes.segment_complete, processes.transcoded),
    "PROCESS_AV_VIRTUAL_SEGMENT_COMPLETE": _reported(processes.encoder_window, processes.encoded),
    "THUMBNAIL_UPDATED": _reported(processes.thumbnails, processes.thumbnails_updated),
}
