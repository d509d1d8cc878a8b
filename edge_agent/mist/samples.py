"""Samples of the node and of its sessions, gathered for a window and written as arrays: one record a stream and window.

The node's own are said every few seconds: the balancer sends viewers by them, and takes a node that says nothing for dead.

Invariant: the rows of a window are bounded. With more sessions than fit, all are sampled less often; none is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from uuid import UUID

from edge_agent.mist.clients import Client
from edge_agent.mist.load import Load
from edge_agent.mist.sight import Sight
from edge_agent.turn import Turn, subject_of
from streams.generated import ClientSamples, NodeSamples

WINDOW_MS: Final = 30_000
NODE_MS: Final = 5000
WINDOW_ROWS: Final = 20_000  # of sessions; about 2 MB
RECORD_ROWS: Final = 500


class Samples:
    """What was sampled since the last records."""

    def __init__(self) -> None:
        self._began_ms: int | None = None  # elapsed
        self._loads: list[tuple[int, Load]] = []
        self._node_said_ms: int | None = None  # elapsed
        self._rows: dict[UUID, list[tuple[int, Client]]] = {}
        self._row_count = 0

    def take(self, turn: Turn, sight: Sight, load: Load | None) -> None:
        """Adds one look; says the records when their window is over."""
        if self._began_ms is None:
            self._began_ms = sight.elapsed_ms
        if load:
            self._loads.append((sight.at_ms, load))
            if self._node_said_ms is None or sight.elapsed_ms - self._node_said_ms >= NODE_MS:
                self._say_node(turn)
                self._node_said_ms = sight.elapsed_ms
        if self._row_count + len(sight.clients) <= WINDOW_ROWS or not self._row_count:
            self._add(turn, sight)
        if sight.elapsed_ms - self._began_ms >= WINDOW_MS:
            self.say(turn)

    def _add(self, turn: Turn, sight: Sight) -> None:
        for client in sight.clients:
            stream = turn.policy.by_media_name(client.stream)
            if stream and not stream.deleted:
                self._rows.setdefault(stream.stream_id, []).append((sight.at_ms, client))
                self._row_count += 1

    def say(self, turn: Turn) -> None:
        for stream_id, rows in self._rows.items():
            stream = turn.policy.stream(stream_id)
            if stream is None:
                continue
            for number, piece in enumerate(_pieces(rows)):
                turn.about(f"samples {stream_id} {number}").say(_client_samples(turn, piece), subject_of(stream))
        self._began_ms, self._rows, self._row_count = None, {}, 0

    def _say_node(self, turn: Turn) -> None:
        turn.about("load").say(_node_samples(turn, self._loads), turn.node.subject)
        self._loads = []


def _pieces(rows: list[tuple[int, Client]]) -> Iterator[list[tuple[int, Client]]]:
    for start in range(0, len(rows), RECORD_ROWS):
        yield rows[start : start + RECORD_ROWS]


def _node_samples(turn: Turn, loads: list[tuple[int, Load]]) -> NodeSamples:
    every = [load for _, load in loads]
    return NodeSamples(
        node_id=turn.node.node_id,
        window_started_at=turn.moment(loads[0][0]),
        sampled_at=tuple(turn.moment(at_ms) for at_ms, _ in loads),
        cpu_permille=tuple(load.cpu_permille for load in every),
        memory_used_bytes=tuple(load.memory_used_bytes for load in every),
        memory_total_bytes=tuple(load.memory_total_bytes for load in every),
        shm_used_bytes=tuple(load.shm_used_bytes for load in every),
        shm_total_bytes=tuple(load.shm_total_bytes for load in every),
        up_bytes=tuple(load.up_bytes for load in every),
        down_bytes=tuple(load.down_bytes for load in every),
        viewers=tuple(load.viewers for load in every),
        inputs=tuple(load.inputs for load in every),
        outputs=tuple(load.outputs for load in every),
        bandwidth_limit_bytes_per_second=every[-1].bandwidth_limit_bytes_per_second,
    )


def _client_samples(turn: Turn, rows: list[tuple[int, Client]]) -> ClientSamples:
    every = [client for _, client in rows]
    return ClientSamples(
        node_id=turn.node.node_id,
        window_started_at=turn.moment(rows[0][0]),
        session_ids=tuple(client.sessid for client in every),
        sampled_at=tuple(turn.moment(at_ms) for at_ms, _ in rows),
        connectors=tuple(client.protocol for client in every),
        connected_seconds=tuple(client.conntime for client in every),
        up_bytes=tuple(client.up for client in every),
        down_bytes=tuple(client.down for client in every),
        up_bytes_per_second=tuple(client.upbps for client in every),
        down_bytes_per_second=tuple(client.downbps for client in every),
        packets_sent=tuple(client.pktcount for client in every),
        packets_lost=tuple(client.pktlost for client in every),
        packets_retransmitted=tuple(client.pktretransmit for client in every),
    )
