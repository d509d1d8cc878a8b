"""Relays: streams that the media server fetches from another node, because somebody wants to watch them here.

Invariant: what the buffer of a relayed stream does is never told as the broadcast's own going on the air or off it: the stream is
live where its publisher is, and may go on there when nobody watches it here any more. A relay that was told to have started ends
once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from uuid import UUID

from edge_agent.node_state import Relay
from edge_agent.turn import Turn, subject_of
from streams.generated import StreamPolicy, StreamRelayEnded, StreamRelayStarted

REFRESHED_MS: Final = 3_600_000
FETCHING: Final = frozenset({"DTSC", "DTSCQuic"})
"""Connectors by which a media server fetches a stream from another. To MistServer that is no viewer's session, whoever it is."""


def expect(turn: Turn, stream: StreamPolicy) -> None:
    """STREAM_SOURCE was answered with the balancer. Players ask again and again for a stream that is nowhere."""
    key = str(stream.stream_id)
    known = turn.state.relays.get(key)
    if known is None or abs(turn.now_ms - known.asked_ms) > REFRESHED_MS:
        is_running = known is not None and known.is_running
        turn.state.relays.put(key, Relay(asked_ms=turn.now_ms, is_running=is_running))


def is_relayed(turn: Turn, stream: StreamPolicy) -> bool:
    """Whether what the stream's buffer holds came from another node."""
    if turn.state.relays.get(str(stream.stream_id)) is None:
        return False
    return all(ingest.is_lost for _, ingest in turn.state.open_ingests(stream.stream_id))


def started(turn: Turn, stream: StreamPolicy, evidence: str | None = None) -> None:
    key = str(stream.stream_id)
    known = turn.state.relays.get(key)
    if known is not None and not known.is_running:
        turn.say(StreamRelayStarted(turn.node.node_id, stream.internal_name, evidence), subject_of(stream))
        turn.state.relays.put(key, replace(known, is_running=True))


def stopped(turn: Turn, stream: StreamPolicy, evidence: str | None = None) -> None:
    """It may begin again without a question: the media server keeps an input that lost its source for a while."""
    key = str(stream.stream_id)
    known = turn.state.relays.get(key)
    if known is not None and known.is_running:
        turn.say(StreamRelayEnded(turn.node.node_id, stream.internal_name, evidence), subject_of(stream), part=key)
        turn.state.relays.put(key, replace(known, is_running=False))


def forget(turn: Turn, stream: StreamPolicy) -> None:
    """The stream is published here."""
    stopped(turn, stream)
    turn.state.relays.drop(str(stream.stream_id))


def conclude_all(turn: Turn) -> None:
    """The media server started anew, without any of its streams."""
    for key, relay in turn.state.relays.items():
        if relay.is_running and (stream := turn.policy.stream(UUID(key))):
            stopped(turn, stream)
        turn.state.relays.drop(key)
