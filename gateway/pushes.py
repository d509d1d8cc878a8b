"""A stream's push targets and recordings: what was decided, and what the nodes make of it, as of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from ariadne import ObjectType
from graphql import GraphQLResolveInfo

from gateway import reads
from gateway.runtime import Context
from projections import push_targets
from projections.push_targets import PushTargetRow, RecordingRequestRow
from projections.streams import StreamRow
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
stream_type = ObjectType("Stream")
TYPES: Final = (stream_type,)


@stream_type.field("pushTargets")
async def resolve_push_targets(stream: StreamRow, info: Info, after: Position | None = None) -> Sequence[PushTargetRow]:
    context: Context = info.context
    await reads.wait_for(context, push_targets.PROJECTION.name, after)

    async def read(stream_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[PushTargetRow]]:
        return await push_targets.targets_of(context.runtime.database, stream.tenant_id, stream_ids)

    return await reads.of_streams(context, "push targets", stream.stream_id, read) or ()


@stream_type.field("recordingRequests")
async def resolve_recording_requests(
    stream: StreamRow, info: Info, after: Position | None = None
) -> Sequence[RecordingRequestRow]:
    context: Context = info.context
    await reads.wait_for(context, push_targets.PROJECTION.name, after)

    async def read(stream_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[RecordingRequestRow]]:
        return await push_targets.recordings_of(context.runtime.database, stream.tenant_id, stream_ids)

    return await reads.of_streams(context, "recording requests", stream.stream_id, read) or ()
