"""The subscription's source: checks who asks for which stream, then hands on its feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, cast

from ariadne import SubscriptionType
from ariadne.types import Subscriber
from graphql import GraphQLResolveInfo

from gateway import reads
from gateway.cursors import parse_event_cursor
from gateway.errors import ApiError
from gateway.runtime import Context
from gateway.subscriptions import Feed, Shown, Snapshot

Info = GraphQLResolveInfo[Context]
subscription = SubscriptionType()
TYPES: Final = (subscription,)


async def stream_events_source(_: None, info: Info, stream_id: str, after: str | None = None) -> AsyncIterator[Shown]:
    context: Context = info.context
    # A stream that was made a moment ago can be subscribed to: there is no argument by which a client could wait for it.
    row = await reads.stream(context, stream_id, context.runtime.sender.newest(context.tenant_id()))
    if row is None:
        raise ApiError("NOT_FOUND", "There is no such stream: check its id.")
    start = parse_event_cursor(row.stream_id, after) if after else None
    feed = Feed(context.runtime.fanout, context.runtime.history, row.tenant_id, row.stream_id)

    async def snapshot() -> Snapshot:
        return await reads.snapshot(context, row)

    return feed.events(start, snapshot)


@subscription.field("streamEvents")
def stream_events(shown: Shown, _: Info, **__: object) -> Shown:
    return shown


# Ariadne's annotation knows no source that checks something first; graphql-core awaits it.
subscription.set_source("streamEvents", cast(Subscriber, stream_events_source))
