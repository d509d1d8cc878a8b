"""Writes `docs/events.md`: every record, its topic and fields, and where the founding documents' event types went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Schema = Mapping[str, object]

# The twelve event types of the founding documents, and the records that carry them here.
SEED_TYPES: Mapping[str, Sequence[str]] = {
    "stream-ingest": ("IngestStarted", "IngestEnded", "IngestRejected"),
    "stream-view": ("ViewerJoined", "ViewerRejected"),
    "stream-lifecycle": (
        "StreamCreated",
        "StreamRenamed",
        "StreamKeyRotated",
        "StreamDeleted",
        "StreamWentLive",
        "StreamWentOffline",
    ),
    "stream-buffer": ("BufferChanged",),
    "stream-end": ("StreamTotals",),
    "user-connection": ("ViewerJoined", "ViewerLeft", "ViewerRejected"),
    "push-lifecycle": ("PushStarted", "PushEnded"),
    "recording-lifecycle": ("RecordingEnded",),
    "track-list": ("TracksChanged",),
    "client-lifecycle": ("ClientSamples",),
    "node-monitoring": ("NodeStarted", "NodeStopped", "NodeObserved", "NodeConfigured", "NodeSamples", "TriggerInvalid"),
    "load-balancing": ("ViewerRouted", "StreamRelayStarted", "StreamRelayEnded"),
}

INTRODUCTION = """# Events

Written by `make gen` from `schemas/avro`. Every record begins with `meta` (see `schemas/avro/Meta.avsc`), is framed as 0x00,
schema id (4 bytes, big-endian), Avro body, and carries the Kafka headers `tenant_id`, `event_type` and, where there is a
trace, `traceparent`.
"""


def type_text(kind: object) -> str:
    if isinstance(kind, list):
        return f"{type_text(kind[1])}, nullable"
    if isinstance(kind, dict):
        match kind["type"]:
            case "array":
                return f"list of {type_text(kind['items'])}"
            case "enum":
                return " \\| ".join(kind["symbols"])
            case "record":
                return str(kind["name"])
            case primitive:
                return str(kind.get("logicalType", primitive))
    return str(kind)


def events_page(entries: Sequence[Mapping[str, object]], schemas: Sequence[Schema]) -> str:
    ids = {str(e["subject"]): e["id"] for e in entries}
    out = [INTRODUCTION, "## The founding documents' event types\n\n| event type | records |\n| --- | --- |"]
    for seed, names in SEED_TYPES.items():
        out.append(f"| `{seed}` | {', '.join(f'`{n}`' for n in names)} |")
    for namespace in dict.fromkeys(str(s["namespace"]) for s in schemas):
        out.append(f"\n## {namespace}\n")
        for schema in (s for s in schemas if s["namespace"] == namespace):
            name = str(schema["name"])
            topic = schema.get("topic")
            where = f"topic `{topic}`, " if topic else ""
            out.append(f"### {name}\n\n{schema['doc']} ({where}schema id {ids[f'{namespace}.{name}']})\n")
            fields = schema["fields"]
            assert isinstance(fields, list)
            rows = [f for f in fields if f["name"] != "meta"]
            if rows:
                out.append("| field | type | meaning |\n| --- | --- | --- |")
                out.extend(f"| `{f['name']}` | {type_text(f['type'])} | {f['doc']} |" for f in rows)
                out.append("")
    return "\n".join(out).rstrip() + "\n"
