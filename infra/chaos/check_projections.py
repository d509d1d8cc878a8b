"""The stores against the log: every table is the clean fold of every record, computed here a second time and more simply.

What is checked: in ClickHouse each table of facts and samples row by row, all columns that a record has (as readers see them,
through the views); in Postgres streams, tenants, tokens and the journal. A row that is not there may only be late.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import asyncpg
from clickhouse_connect.driver.exceptions import ClickHouseError

from infra.chaos.findings import Finding, Wrong
from infra.chaos.log import FACTS, Entry, instant, once, plain
from projections import PROJECTIONS
from projections.clickhouse import connect, rows
from projections.clickhouse_tables import ArrayTable, FactTable
from projections.model import FactProjection

Row = tuple[object, ...]
Rows = Mapping[str, Sequence[Row]]  # by key


def compare(table: str, expected: Rows, found: Rows) -> Iterator[Finding]:
    """Rows by key, in any order under one key. Everything may pass: the log was read before the table was."""
    for key, wanted in expected.items():
        there = found.get(key, ())
        if sorted(map(repr, wanted)) == sorted(map(repr, there)):
            continue
        if len(there) > len(wanted):
            yield Finding(Wrong.DOUBLED, f"{len(there)} rows where the log makes {len(wanted)}", f"{table} {key}", may_come=True)
        elif len(there) < len(wanted):
            what = f"{len(there)} rows where the log makes {len(wanted)}"
            yield Finding(Wrong.LOST, what, f"{table} {key}", may_come=True)
        else:
            what = f"{list(there)!r:.600} where the log makes {list(wanted)!r:.600}"
            yield Finding(Wrong.DIFFERS, what, f"{table} {key}", may_come=True)
    for key in found.keys() - expected.keys():
        yield Finding(Wrong.INVENTED, "a row that no record makes", f"{table} {key}", may_come=True)


async def check_clickhouse(url: str, log: Sequence[Entry]) -> list[Finding]:
    facts = defaultdict[str, list[Entry]](list)
    for entry in once([e for e in log if e.topic in FACTS]):
        facts[entry.type].append(entry)
    found: list[Finding] = []
    ch = await connect(url)
    try:
        for table in _fact_tables():
            expected = _unfolded(table, facts) if isinstance(table, ArrayTable) else _flat(table, facts)
            try:
                listed = await rows(ch, _select(table), {})
            except ClickHouseError as error:  # a table that cannot be read has lost its rows, and another must still be looked at
                found.append(Finding(Wrong.LOST, f"the table cannot be read: {error}", table.view))
                continue
            found += compare(table.view, expected, _by_key(tuple(plain(v) for v in row) for row in listed))
    finally:
        await ch.close()
    return found


def _fact_tables() -> Iterator[FactTable]:
    for name in PROJECTIONS:
        projection = importlib.import_module(f"projections.{name}").PROJECTION
        if isinstance(projection, FactProjection):
            yield from projection.tables


def _names(table: FactTable) -> list[str]:
    return [field.name for field in dataclasses.fields(table.record)]


def _arrays(table: ArrayTable) -> list[str]:
    """Fields of the record that are unfolded."""
    return [str(f.name) for f in dataclasses.fields(table.record) if str(f.type).startswith("tuple")]


def _select(table: FactTable) -> str:
    if isinstance(table, ArrayTable):
        columns = ["event_id", "tenant_id", "aggregate_id", *(table.singular.get(name, name) for name in _arrays(table))]
    else:
        is_bytes = {f.name for f in dataclasses.fields(table.record) if "bytes" in str(f.type).replace("_bytes", "")}
        own = [f"lower(hex({name})) AS {name}" if name in is_bytes else name for name in _names(table)]
        columns = ["event_id", "tenant_id", "aggregate_id", "occurred_at", *own]
    return f"SELECT {', '.join(columns)} FROM {table.view}"  # noqa: S608 - names of our own schemas


def _flat(table: FactTable, facts: Mapping[str, Sequence[Entry]]) -> Rows:
    return _by_key(
        (e.event_id, e.tenant_id, e.aggregate_id, instant(e.occurred_at), *(e.fields[name] for name in _names(table)))
        for e in facts.get(table.record.__name__, ())
    )


def _unfolded(table: ArrayTable, facts: Mapping[str, Sequence[Entry]]) -> Rows:
    """One row an element."""
    found: list[Row] = []
    for e in facts.get(table.record.__name__, ()):
        arrays = [e.fields[name] for name in _arrays(table)]
        found += [(e.event_id, e.tenant_id, e.aggregate_id, *row) for row in zip(*arrays, strict=True)]
    return _by_key(found)


def _by_key(listed: Iterable[Row]) -> Rows:
    found = defaultdict[str, list[Row]](list)
    for row in listed:
        found[str(row[0])].append(row[1:])
    return found


async def check_postgres(url: str, log: Sequence[Entry]) -> list[Finding]:
    db = await asyncpg.connect(url)
    try:
        found: list[Finding] = []
        for table, (columns, expected) in folded(log).items():
            condition = " WHERE created_at IS NOT NULL" if table == "streams" else ""
            listed = await db.fetch(f"SELECT {columns} FROM {table}{condition}")  # noqa: S608 - our names
            found += compare(table, expected, _by_key(tuple(plain(value) for value in row) for row in listed))
        return found
    finally:
        await db.close()


def folded(log: Sequence[Entry]) -> Mapping[str, tuple[str, Rows]]:
    """What Postgres must hold: for each table, the columns that are compared (the first is the key), and the rows."""
    streams: dict[str, dict[str, object]] = {}
    tenants: list[Row] = []
    tokens: dict[tuple[str, object], dict[str, object]] = {}
    journal: list[Row] = []
    for e in (entry for entry in log if entry.topic == "decisions"):
        at = instant(e.occurred_at)
        if e.type != "CommandHandled" or e.fields["status"] != "ACCEPTED":
            journal.append((f"{e.partition}-{e.offset}", e.aggregate_id, e.version, e.event_id, e.type, at))
        match e.type:
            case "TenantRegistered":
                tenants.append((e.tenant_id, e.fields["name"], at))
            case "ApiTokenIssued":
                tokens[e.tenant_id, e.fields["token_prefix"]] = {"name": e.fields["name"], "hash": e.fields["token_hash"]}
            case "ApiTokenRevoked":
                tokens.setdefault((e.tenant_id, e.fields["token_prefix"]), {})["hash"] = ""
            case "StreamCreated":
                kept = ("title", "slug", "playback_id", "internal_name", "key_prefix")
                streams[e.aggregate_id] = {**{name: e.fields[name] for name in kept}, "created": at}
            case "StreamRenamed":
                streams[e.aggregate_id]["title"] = e.fields["title"]
            case "StreamKeyRotated":
                streams[e.aggregate_id]["key_prefix"] = e.fields["key_prefix"]
            case "StreamDeleted":
                streams[e.aggregate_id]["deleted"] = at
            case _:
                pass
    live = _live(log)
    names = ("title", "slug", "playback_id", "internal_name", "key_prefix", "created", "deleted")
    return {
        "streams": (
            "stream_id, title, slug, playback_id, internal_name, key_prefix, created_at, deleted_at, live_at, offline_at, "
            "ingest_started_at, ended_ingest_started_at",
            _by_key((id_, *(row.get(name) for name in names), *live[id_]) for id_, row in streams.items()),
        ),
        "tenants": ("tenant_id, name, registered_at", _by_key(tenants)),
        "api_tokens": (
            "tenant_id, token_prefix, name, token_hash",
            _by_key((tenant, prefix, row.get("name"), row["hash"]) for (tenant, prefix), row in tokens.items()),
        ),
        "journal": (
            "log_partition || '-' || log_offset, aggregate_id, version, event_id, event_type, occurred_at",
            _by_key(journal),
        ),
    }


def _live(log: Sequence[Entry]) -> Mapping[str, Row]:
    """The latest time of each kind of fact, for every stream: of ends, when what ended had begun."""
    kinds = ("StreamWentLive", "StreamWentOffline", "IngestStarted", "IngestEnded")
    beginnings = {"IngestEnded": "started_at", "StreamWentOffline": "live_since"}
    latest = defaultdict[str, list[str]](lambda: [""] * len(kinds))
    for e in log:
        if e.type in kinds and e.topic == "facts":
            place = kinds.index(e.type)
            at = instant(e.occurred_at)
            began = e.fields.get(beginnings.get(e.type, ""))
            value = str(began or at)
            latest[e.aggregate_id][place] = max(latest[e.aggregate_id][place], value)
    found: dict[str, Row] = defaultdict(lambda: (None,) * len(kinds))
    found |= {stream: tuple(value or None for value in row) for stream, row in latest.items()}
    return found
