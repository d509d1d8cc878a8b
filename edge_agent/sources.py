"""Where the media server gets a stream from that is asked for and not there."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from edge_agent import relays
from edge_agent.node_state import PENDING_MS
from edge_agent.turn import Turn
from streams.generated import StreamPolicy

CONFIGURED: Final = ""  # an empty answer: the source that the stream is configured with (CONTRACT 2.3)
_FALLBACK: Final = quote("push://", safe="")


def stream_source(turn: Turn, name: str) -> str:
    """The balancer, which names the node that has the stream; the configured source while its publisher is here or on the way.

    MistServer asks `balance:` sources itself, over HTTP, and takes the fallback where no node has the stream, or nobody answers.
    """
    stream = turn.policy.by_media_name(name)
    if stream is None or turn.site.balancer_url is None:
        return CONFIGURED
    if is_published_here(turn, stream):
        relays.forget(turn, stream)
        return CONFIGURED
    relays.expect(turn, stream)
    return f"balance:{turn.site.balancer_url}/?fallback={_FALLBACK}"


def is_published_here(turn: Turn, stream: StreamPolicy) -> bool:
    if any(not ingest.is_lost for _, ingest in turn.state.open_ingests(stream.stream_id)):
        return True
    admissions = turn.state.admissions.of_group(stream.stream_id)
    return any(admission.opened_ms > turn.now_ms - PENDING_MS for _, admission in admissions)
