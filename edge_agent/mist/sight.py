"""One look at a MistServer: everything that is compared and sampled, asked for in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edge_agent.mist import active_streams, clients, config, push_list
from edge_agent.mist.active_streams import ActiveStream
from edge_agent.mist.clients import Client
from edge_agent.mist.push_list import RunningPush

COMMANDS: Final[Mapping[str, object]] = {**clients.COMMAND, **active_streams.COMMAND, **push_list.COMMAND, **config.COMMAND}


@dataclass(frozen=True, slots=True)
class Sight:
    """`elapsed_ms` is of a clock that never jumps; `at_ms` of the one on the wall. Sessions are those of five seconds ago."""

    instance: str
    clients: tuple[Client, ...]
    streams: Mapping[str, ActiveStream]
    pushes: tuple[RunningPush, ...]
    elapsed_ms: int
    at_ms: int
    prometheus: str = ""
    inputs: Mapping[str, list[Client]] = field(default_factory=dict)  # publishers' sessions by stream
    living: frozenset[str] = frozenset()  # of the publishers that are open here and nobody's source, the processes that run


def read(answer: Mapping[str, object], elapsed_ms: int, at_ms: int) -> Sight:
    """Raises Transient: then nothing may be concluded."""
    server, listed = config.read(answer), clients.read(answer).rows
    inputs: dict[str, list[Client]] = {}
    for client in listed:
        if client.is_input:
            inputs.setdefault(client.stream, []).append(client)
    return Sight(
        instance=server.iid,
        clients=listed,
        streams=active_streams.read(answer),
        pushes=push_list.read(answer),
        elapsed_ms=elapsed_ms,
        at_ms=at_ms,
        prometheus=server.prometheus or "",
        inputs=inputs,
    )
