"""The operations that the demo uses and prints: what they ask, and the shape of the answers."""

from __future__ import annotations

from typing import Final

import msgspec

CREATE_TENANT: Final = """
mutation CreateTenant($input: CreateTenantInput!) {
  createTenant(input: $input) {
    __typename
    ... on CreateTenantSuccess { apiToken tenant { id name } }
    ... on Error { code message }
  }
}"""

CREATE_STREAM: Final = """
mutation CreateStream($input: CreateStreamInput!) {
  createStream(input: $input) {
    __typename
    ... on CreateStreamSuccess { streamKey position stream { id title slug playbackId } }
    ... on Error { code message }
  }
}"""

READ_OWN_WRITE: Final = """
query ReadOwnWrite($id: ID!, $after: Position) {
  stream(id: $id, after: $after) { state }
}"""

WATCH: Final = """
subscription Watch($streamId: ID!, $after: Cursor) {
  streamEvents(streamId: $streamId, after: $after) {
    __typename cursor eventId occurredAt
    ... on StreamSnapshot { state viewersNow }
    ... on EventsSkipped { skipReason }
    ... on IngestStarted { protocol }
    ... on IngestEnded { endReason }
    ... on IngestRejected { reason }
    ... on ViewerRejected { reason }
    ... on BufferChanged { bufferState issues }
    ... on TracksChanged { tracks { codec } }
    ... on ViewerJoined { connector country }
    ... on ViewerLeft { connector seconds upBytes synthesized }
    ... on StreamTotals { upBytes viewers viewerSeconds }
    ... on PushStarted { target }
    ... on PushEnded { target sentBytes endReason }
    ... on RecordingEnded { path sizeBytes }
    ... on BandwidthMeasured { bytesPerSecond }
  }
}"""

WHO_WATCHED: Final = """
query WhoWatched($id: ID!) {
  stream(id: $id) {
    title state viewers { now peak total }
    sessions(first: 100) {
      totalCount
      edges { node { sessionId joinedAt leftAt seconds upBytes downBytes connector country endReason synthesized } }
    }
  }
}"""

WHO_PUBLISHED: Final = """
query WhoPublished($id: ID!) {
  stream(id: $id) {
    ingests(first: 100) { totalCount edges { node { startedAt endedAt protocol endReason bytes } } }
    rejections(first: 100) { totalCount edges { node { at kind reason } } }
  }
}"""

WHAT_WENT_ON: Final = """
query WhatWentOn($id: ID!) {
  stream(id: $id) {
    pushes(first: 100) { totalCount edges { node { target endedAt seconds bytes endReason } } }
    recordings(first: 100) { totalCount edges { node { path seconds bytes endReason } } }
  }
}"""

WHO_WAS_REFUSED: Final = """
query WhoWasRefused {
  rejections(first: 100) { edges { node { at kind reason keyRedacted } } }
}"""


class Named(msgspec.Struct, rename="camel"):
    id: str
    title: str = ""
    name: str = ""
    slug: str = ""


class Made(msgspec.Struct, rename="camel"):
    """A mutation's payload: the success, or why not."""

    typename: str = msgspec.field(name="__typename")
    code: str = ""
    message: str = ""
    api_token: str = ""
    stream_key: str = ""
    position: str = ""
    tenant: Named | None = None
    stream: Named | None = None


class TenantMade(msgspec.Struct, rename="camel"):
    create_tenant: Made


class StreamMade(msgspec.Struct, rename="camel"):
    create_stream: Made


class Codec(msgspec.Struct):
    codec: str


class Event(msgspec.Struct, rename="camel"):
    """Any event of the subscription; a field that its type does not have is None."""

    typename: str = msgspec.field(name="__typename")
    cursor: str
    event_id: str
    occurred_at: str
    state: str | None = None
    viewers_now: int | None = None
    skip_reason: str | None = None
    protocol: str | None = None
    end_reason: str | None = None
    reason: str | None = None
    buffer_state: str | None = None
    issues: str | None = None
    tracks: list[Codec] | None = None
    connector: str | None = None
    country: str | None = None
    seconds: int | None = None
    up_bytes: int | None = None
    synthesized: bool | None = None
    viewers: int | None = None
    viewer_seconds: int | None = None
    target: str | None = None
    sent_bytes: int | None = None
    path: str | None = None
    size_bytes: int | None = None
    bytes_per_second: int | None = None


class Watched(msgspec.Struct, rename="camel"):
    stream_events: Event


class Node(msgspec.Struct, rename="camel"):
    """Any node of the connections below."""

    seconds: int | None = None
    up_bytes: int | None = None
    down_bytes: int | None = None
    connector: str | None = None
    synthesized: bool = False
    left_at: str | None = None
    ended_at: str | None = None
    end_reason: str | None = None
    bytes: int | None = None
    at: str = ""
    kind: str = ""
    reason: str = ""
    key_redacted: str | None = None


class Edge(msgspec.Struct):
    node: Node


class Connection(msgspec.Struct, rename="camel", frozen=True):
    edges: list[Edge]
    total_count: int = 0

    @property
    def nodes(self) -> list[Node]:
        return [edge.node for edge in self.edges]


NONE: Final = Connection([])


class Viewers(msgspec.Struct):
    now: int = 0
    peak: int = 0
    total: int = 0


class Stream(msgspec.Struct, rename="camel"):
    state: str = ""
    viewers: Viewers = msgspec.field(default_factory=Viewers)
    sessions: Connection = NONE
    ingests: Connection = NONE
    rejections: Connection = NONE
    pushes: Connection = NONE
    recordings: Connection = NONE


class AboutStream(msgspec.Struct):
    stream: Stream | None


class Rejections(msgspec.Struct):
    rejections: Connection
