"""What MistServer's balancer shows of hosts and streams, made from the picture and the newest samples."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from gateway.balancer.balancer import Balancer
from gateway.balancer.media_json import Value, pretty
from gateway.balancer.names import MEDIA_PREFIX
from gateway.balancer.picture import NodeState, by_host
from projections import routing, samples
from projections.clickhouse import AsyncClient
from projections.model import Database
from projections.samples import NO_SESSIONS, Sessions
from streams.balancing.score import Exclusion, Purpose, bandwidth_ppm, part, standing

SHOWN_SECONDS: Final = 2.0
"""Numbers of all streams are asked for so rarely, however many ask for them."""
RESOLVED_SECONDS: Final = 60.0
RESOLVE_SECONDS: Final = 1.0
MOST_STREAMS: Final = 10_000
PORTS: Final = {"http": 80, "https": 443}


class Displays:
    def __init__(self, balancer: Balancer, database: Database, clickhouse: AsyncClient) -> None:
        self._balancer, self._database, self._clickhouse = balancer, database, clickhouse
        self._viewers: tuple[float, Mapping[str, Value]] = (0.0, {})
        self._addresses: dict[str, tuple[float, frozenset[str]]] = {}

    def hosts(self) -> Mapping[str, Value]:
        """Every host with its numbers, or a sentence where it has none."""
        live: dict[str, int] = {}
        for nodes in self._balancer.picture.live_streams().values():
            for node_id in nodes:
                live[node_id] = live.get(node_id, 0) + 1
        states = by_host(self._balancer.nodes().values())
        return {host: self._host(state, live.get(state.node.node_id, 0)) for host, state in states.items()}

    def host(self, name: str) -> str:
        """One host as text."""
        return pretty(self.hosts().get(name, {}))

    async def servers(self) -> Mapping[str, Value]:
        """host:port of every node, and how it is."""
        found: dict[str, Value] = {}
        for state in self._balancer.nodes().values():
            url = urlsplit(state.base_url or "")
            found[f"{state.host}:{url.port or PORTS.get(url.scheme, 80)}"] = self._standing(state)
        return found

    async def viewers(self) -> Mapping[str, Value]:
        """Viewers by stream, of all that are live."""
        until, shown = self._viewers
        if time.monotonic() >= until:
            keys = list(self._balancer.picture.live_streams())[:MOST_STREAMS]
            names = await routing.stream_names(self._database, [stream_id for _, stream_id in keys]) if keys else {}
            found = await samples.sessions_now(self._clickhouse, keys) if keys else {}
            shown = {
                MEDIA_PREFIX + names[key[1]].internal_name: found.get(key, NO_SESSIONS).viewers for key in keys if key[1] in names
            }
            self._viewers = time.monotonic() + SHOWN_SECONDS, shown
        return shown

    async def viewers_of(self, name: str) -> int:
        return (await self._sessions(name)).viewers

    async def statistics(self, name: str) -> list[Value]:
        """Viewers, bytes per second of one of them, bytes up, bytes down."""
        found = await self._sessions(name)
        return [found.viewers, found.up_bytes_per_second // max(1, found.viewers), found.up_bytes, found.down_bytes]

    async def nodes_at(self, address: str, node: str, stream: tuple[UUID, UUID]) -> frozenset[str]:
        """Nodes with the stream that this is one of: by the name it gives itself, or by the address that it asks from."""
        states = self._balancer.nodes()
        holders = [states[n] for n in self._balancer.picture.holders(*stream) if n in states]
        addresses = await self._resolved({state.host for state in holders})
        return frozenset(
            state.node.node_id
            for state in holders
            if node in (state.node.node_id, state.host) or address == state.host or address in addresses.get(state.host, ())
        )

    async def _sessions(self, name: str) -> Sessions:
        stream = await self._balancer.names.find(name)
        if stream is None:
            return NO_SESSIONS
        key = stream.tenant_id, stream.stream_id
        return (await samples.sessions_now(self._clickhouse, [key])).get(key, NO_SESSIONS)

    async def _resolved(self, hosts: Iterable[str]) -> Mapping[str, frozenset[str]]:
        """Addresses of hosts, remembered for a minute; a name that does not resolve has none."""
        now = time.monotonic()
        unknown = [host for host in hosts if self._addresses.get(host, (0.0, frozenset()))[0] <= now]
        loop = asyncio.get_running_loop()

        async def resolve(host: str) -> None:
            found: frozenset[str] = frozenset()
            with suppress(OSError, TimeoutError, UnicodeError):
                async with asyncio.timeout(RESOLVE_SECONDS):
                    found = frozenset(str(info[4][0]) for info in await loop.getaddrinfo(host, None))
            self._addresses[host] = now + RESOLVED_SECONDS, found

        await asyncio.gather(*map(resolve, unknown))
        return {host: self._addresses[host][1] for host in hosts}

    def _standing(self, state: NodeState) -> str:
        balancer = self._balancer
        match standing(state.node, Purpose.SOURCE, balancer.ceilings, balancer.fleet().now_ms):
            case Exclusion.STOPPED | Exclusion.REVOKED:
                return "Offline"
            case Exclusion.STALE:
                return "Monitored (error)" if state.node.sampled_at_ms is not None else "Starting monitoring"
            case _:
                return "Monitored (online)"

    def _host(self, state: NodeState, streams: int) -> Value:
        if (said := self._standing(state)) != "Monitored (online)":
            return said
        node, weights = state.node, self._balancer.picture.weights
        added = self._balancer.reservations.bytes_per_second(node.node_id)
        shown: dict[str, Value] = {
            "bwlimit": node.limit_bytes_per_second,
            "cpu": node.cpu_ppm // 10_000,
            "down": state.down_bytes_per_second,
            "ram": node.ram_ppm // 10_000,
            "score": {
                "bw": part(weights.bandwidth, bandwidth_ppm(node, added)),
                "cpu": part(weights.cpu, node.cpu_ppm),
                "ram": part(weights.ram, node.ram_ppm),
            },
            "streams": streams,
            "up": node.up_bytes_per_second,
            "up_add": added,
            "viewers": state.viewers + self._balancer.reservations.viewers(node.node_id),
        }
        if state.latitude is not None and state.longitude is not None:
            shown["geo"] = {"lat": state.latitude, "loc": state.region or state.name, "lon": state.longitude}
        return shown
