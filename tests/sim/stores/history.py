"""What happens to two tenants, as it comes onto the log: decisions in order, facts in any, some twice, some meaningless."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from aiokafka import TopicPartition

from projections.model import TP
from streams.codec import encode
from streams.generated import (
    ApiTokenIssued,
    ApiTokenRevoked,
    BufferChanged,
    BufferState,
    ClientSamples,
    CommandHandled,
    CommandStatus,
    Event,
    IngestEnded,
    IngestStarted,
    Meta,
    NodeStarted,
    StreamCreated,
    StreamDeleted,
    StreamKeyRotated,
    StreamRenamed,
    StreamWentLive,
    StreamWentOffline,
    TenantRegistered,
    ViewerEnd,
    ViewerJoined,
    ViewerLeft,
)
from streams.ids import NAMESPACE, derive
from streams.topics import Topics, partition_of
from tests.sim.broker import Broker
from tests.sim.loop import BEGINNING

TENANTS: Final = tuple(derive(NAMESPACE, "simulated tenant", n) for n in range(2))
DECISIONS: Final = ("create", "rename", "rotate", "delete", "token", "revoke", "refuse")
KINDS: Final = {
    "started": "IngestStarted",
    "ended": "IngestEnded",
    "live": "StreamWentLive",
    "offline": "StreamWentOffline",
    "zero byte": "StreamWentLive",
    "joined": "ViewerJoined",
    "left": "ViewerLeft",
    "buffer": "BufferChanged",
    "samples": "ClientSamples",
    "node": "NodeStarted",
}
"""Kinds of facts, and what each is."""
GARBAGE: Final = ("unframed", "cut", "longer")
STREAMS: Final = 2


def stream_of(tenant: int, stream: int) -> UUID:
    return derive(TENANTS[tenant], "stream", stream)


@dataclass(slots=True)
class History:
    """Everything that ever came onto the log, also what retention has taken since."""

    broker: Broker
    topics: Topics
    tps: dict[TP, list[tuple[int, int, bytes]]] = field(default_factory=dict)
    """Offset, append time and value by partition."""
    garbage: dict[TP, set[int]] = field(default_factory=dict)
    _versions: dict[UUID, int] = field(default_factory=dict)
    _said: list[tuple[TP, bytes]] = field(default_factory=list)
    _number: int = 0

    def decide(self, tenant: int, kind: str, stream: int) -> str:
        """The next decision about a stream or a tenant, where it is possible; what it was in words."""
        of_tenant = kind in ("token", "revoke")
        about = TENANTS[tenant] if of_tenant else stream_of(tenant, stream)
        version = self._versions.get(about, 0) + 1
        event: Event
        if kind == "refuse":
            event, version = CommandHandled(about, "RenameStream", b"f", CommandStatus.REJECTED, 0, code="NO"), 0
        elif version == 1:
            event = TenantRegistered(name=f"tenant {tenant}") if of_tenant else self._created(stream)
        else:
            event = self._decision(kind)
        if version:
            self._versions[about] = version
        name = self.topics.decisions.name
        tp = TP(name, partition_of(TENANTS[tenant]))
        self._append(tp, encode(event, self._meta(TENANTS[tenant], about, version, self._number)))
        return f"{type(event).__name__} {version} of tenant {tenant + 1}"

    def _created(self, stream: int) -> StreamCreated:
        return StreamCreated(f"title {stream}", f"slug-{stream}", "play", f"in-{stream}", "sk_a", b"h" * 32)

    def _decision(self, kind: str) -> Event:
        n = self._number
        match kind:
            case "rename" | "create":
                return StreamRenamed(title=f"title at {n}")
            case "rotate":
                return StreamKeyRotated(key_prefix=f"sk_{n}", key_hash=b"k" * 32)
            case "delete":
                return StreamDeleted(slug="gone")
            case "token":
                return ApiTokenIssued(name=f"token {n}", token_prefix=f"fw_{n % 3}", token_hash=bytes([n % 256]))
            case _:
                return ApiTokenRevoked(token_prefix=f"fw_{n % 3}")

    def say(self, tenant: int, kind: str, stream: int, second: int, owner: int | None = None) -> str:
        """A fact about a stream of a tenant; `owner`: of whose stream, when it is another's."""
        about = stream_of(tenant if owner is None else owner, stream)
        event = self._fact(kind, second)
        topic = self.topics.of(type(event).__name__)
        tp = TP(topic.name, partition_of(about))
        value = encode(event, self._meta(TENANTS[tenant], about, 0, second))
        self._said.append((tp, value))
        self._append(tp, value)
        return f"{type(event).__name__} of tenant {tenant + 1} at second {second}"

    def _fact(self, kind: str, second: int) -> Event:
        node, n = f"node-{self._number % 3}", self._number
        viewing = derive(NAMESPACE, "viewing", n % 4)
        match kind:
            case "started":
                return IngestStarted(node_id=node, ingest_id=viewing, internal_name="in", protocol="RTMP")
            case "ended":
                return IngestEnded(node_id=node, ingest_id=viewing, internal_name="in", protocol="RTMP", end_reason="CLOSED")
            case "live":
                return StreamWentLive(node_id=node, internal_name="in")
            case "zero byte":  # Postgres refuses it, ClickHouse does not
                return StreamWentLive(node_id="a\0b", internal_name="in")
            case "offline":
                return StreamWentOffline(node_id=node, internal_name="in")
            case "joined":
                return ViewerJoined(node_id=node, session_id=f"s{n}", viewing_id=viewing, connector="HLS")
            case "left":
                return ViewerLeft(
                    node_id=node,
                    session_id=f"s{n}",
                    viewing_id=viewing,
                    connector="HLS",
                    seconds=n,
                    up_bytes=1,
                    down_bytes=n,
                    end_reason=ViewerEnd.DISCONNECTED,
                )
            case "buffer":
                return BufferChanged(node_id=node, state=BufferState.FULL, buffer_ms=n)
            case "node":
                return NodeStarted(node_id=node, software_version="3.10")
        pair = (n, n + 1)
        return ClientSamples(
            node_id=node,
            window_started_at=BEGINNING,
            session_ids=("a", "b"),
            sampled_at=(BEGINNING + timedelta(seconds=second),) * 2,
            connectors=("HLS", "HLS"),
            connected_seconds=pair,
            up_bytes=pair,
            down_bytes=pair,
            up_bytes_per_second=pair,
            down_bytes_per_second=pair,
            packets_sent=pair,
            packets_lost=pair,
            packets_retransmitted=pair,
        )

    def say_again(self, n: int) -> str:
        """A fact that an edge resent: the same event at another offset."""
        if not self._said:
            return ""
        tp, value = self._said[n % len(self._said)]
        self._append(tp, value)
        return f"fact {n % len(self._said) + 1} is appended a second time"

    def soil(self, tenant: int, kind: str, stream: int) -> str:
        """Bytes that mean nothing, on the facts' topic."""
        about = stream_of(tenant, stream)
        tp = TP(self.topics.facts.name, partition_of(about))
        good = encode(StreamWentLive(node_id="n", internal_name="in"), self._meta(TENANTS[tenant], about, 0, 0))
        offset = self._append(tp, {"unframed": b"{}", "cut": good[:-3], "longer": good + b"tail"}[kind])
        self.garbage.setdefault(tp, set()).add(offset)
        return f"garbage is appended to {tp.topic}/{tp.partition}"

    def expire(self, tp: TP, before: int) -> None:
        self.broker.delete_records(TopicPartition(tp.topic, tp.partition), before)

    @property
    def last(self) -> TP:
        """Where the last fact stands."""
        return self._said[-1][0]

    def _append(self, tp: TP, value: bytes) -> int:
        self._number += 1
        offset = self.broker.append(tp.topic, tp.partition, value)
        at = self.broker.now_ms()
        self.tps.setdefault(tp, []).append((offset, at, value))
        return offset

    def _meta(self, tenant: UUID, about: UUID, version: int, second: int) -> Meta:
        event_id = derive(NAMESPACE, "simulated event", self._number)
        at = BEGINNING + timedelta(seconds=second)
        return Meta(event_id, tenant, about, version, event_id, event_id, at, "sim")
