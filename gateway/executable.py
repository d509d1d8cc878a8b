"""The executable schema: SDL files, resolvers, and for all other fields the attribute of the same name.

Invariant: a field without a resolver and without arguments is plain: `camelCase` in the SDL is `snake_case` on the object, or
what NAMES says. Nothing else is looked up at run time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Final

from ariadne import (
    InterfaceType,
    UnionType,
    convert_camel_case_to_snake,
    load_schema_from_path,
    make_executable_schema,
)
from graphql import GraphQLField, GraphQLObjectType, GraphQLResolveInfo, GraphQLSchema, default_field_resolver

from gateway import analytics, decisions, dry_run, mutations, nodes, personal, policy, pushes, queries, routing, subscribe
from gateway.execution import PLAIN
from gateway.runtime import Context
from gateway.scalars import SCALARS
from gateway.subscriptions import Shown
from projections.streams import StreamRow

Get = Callable[..., object]
NAMES: Final[Mapping[tuple[str, str], str]] = {
    ("Tenant", "id"): "tenant_id",
    ("Stream", "id"): "stream_id",
    ("Stream", "playbackPolicy"): "playback",
    ("SigningKey", "id"): "key_id",
    ("Push", "bytes"): "sent_bytes",
    **{
        ("ViewerCounts", name): f"audience.{convert_camel_case_to_snake(name)}"
        for name in ("now", "peak", "total", "unique", "viewerSeconds", "upBytes", "downBytes")
    },
    **{("IngestTotals", name): f"totals.{name}" for name in ("count", "seconds", "bytes")},
    ("Node", "id"): "node_id",
    **{
        ("Node", name): f"described.{convert_camel_case_to_snake(name)}"
        for name in ("region", "latitude", "longitude", "baseUrl", "tags")
    },
    ("Recording", "bytes"): "size_bytes",
    ("StreamHealth", "bufferState"): "state",
    ("BufferChanged", "bufferState"): "state",
    **{
        (kind, name): f"standing.{convert_camel_case_to_snake(name)}"
        for kind in ("PushTarget", "RecordingRequest")
        for name in ("state", "nodeId", "since", "reason", "attempt", "retryAt", "sentBytes")
    },
    ("PushTargetStateChanged", "pushState"): "state",
    ("PushTargetStateChanged", "pushKind"): "kind",
}
_OF_SHOWN: Final = frozenset({"cursor", "eventId", "occurredAt"})


def _is_live(stream: StreamRow) -> bool:
    return stream.state == "LIVE"


def _typename(value: object, *_: object) -> str:
    """Payloads are named like their GraphQL types; events carry the name."""
    return value.typename if isinstance(value, Shown) else type(value).__name__


@cache
def sdl() -> str:
    return load_schema_from_path(str(Path(__file__).parent / "schema"))


@cache
def executable() -> GraphQLSchema:
    """The schema of this process."""
    unions = [UnionType(name, _typename) for name in re.findall(r"^union (\w+Payload) =", sdl(), re.MULTILINE)]
    interfaces = [InterfaceType("Error", _typename), InterfaceType("StreamEvent", _typename)]
    modules = (queries, decisions, analytics, personal, nodes, policy, pushes, dry_run, routing, mutations, subscribe)
    types = [kind for module in modules for kind in module.TYPES]
    schema = make_executable_schema(sdl(), *SCALARS, *types, *unions, *interfaces)
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                _make_plain(kind, name, field, is_event=any(i.name == "StreamEvent" for i in kind.interfaces))
    _name_arguments(schema)
    return schema


def published(schema: GraphQLSchema) -> frozenset[str]:
    """Names of the records that subscribers see."""
    events = schema.get_implementations(schema.type_map["StreamEvent"]).objects  # type: ignore[arg-type]  # it is an interface
    return frozenset(e.name for e in events) - {"StreamSnapshot", "EventsSkipped"}


def _make_plain(kind: GraphQLObjectType, name: str, field: GraphQLField, *, is_event: bool) -> None:
    if field.args or (field.resolve is not None and field.resolve is not default_field_resolver) or kind.name == "Subscription":
        return
    get = _getter(kind.name, name, is_event=is_event)

    def resolve(source: object, _: GraphQLResolveInfo[Context]) -> object:
        return get(source)

    field.resolve = resolve
    field.extensions = {**field.extensions, PLAIN: get}


def _getter(kind: str, name: str, *, is_event: bool) -> Get:
    if (kind, name) == ("Stream", "isLive"):
        return _is_live
    attribute = NAMES.get((kind, name)) or convert_camel_case_to_snake(name)
    return attrgetter(f"event.{attribute}" if is_event and name not in _OF_SHOWN else attribute)


def _name_arguments(schema: GraphQLSchema) -> None:
    """Arguments and input fields reach Python in snake_case; `from` as `from_`. Introspection's own stay as they are."""
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for field in kind.fields.values():
                for name, argument in field.args.items():
                    argument.out_name = "from_" if name == "from" else convert_camel_case_to_snake(name)
        elif kind.name.endswith("Input") and hasattr(kind, "fields"):
            for name, input_field in kind.fields.items():
                input_field.out_name = convert_camel_case_to_snake(name)
