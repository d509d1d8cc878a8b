"""The simulator's ClickHouse against the real one: the same blocks, the same rows, the same refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.embedded.stack import Stack
from projections.avro_blocks import block, header
from projections.clickhouse import AsyncClient, connect, rows
from projections.clickhouse_store import ClickHouseStore, Target, make
from projections.clickhouse_tables import ArrayTable, FactTable
from projections.model import ConsumerRecord
from streams.codec import encode
from streams.generated import Event
from streams.registry import by_name, registered
from tests.arbitrary import EPOCH, records
from tests.fact_log import NOON, FactLog, fact_meta
from tests.sim.loop import SimLoop
from tests.sim.stores.clickhouse import ClickHouseServer, fact_projections
from tests.sim.stores.wire import Wire

T = TypeVar("T")
TABLES = [table for projection in fact_projections() for table in projection.tables]
LATEST = NOON.replace(year=2200)
GOLDEN = Path(__file__).parents[1] / "golden"
PLACE_BYTES = 5 + 3 * 37
"""Of a framed value: the frame and the three ids."""
Run = Callable[[Callable[[AsyncClient], Coroutine[Any, Any, T]]], T]


class Simulated:
    def __init__(self) -> None:
        self.loop = SimLoop()
        self.server = ClickHouseServer(Wire(self.loop))
        self.run(lambda client: make(client, TABLES, is_active=True))

    def run(self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        async def with_client() -> T:
            return await work(self.server.client())

        return self.loop.run(with_client())

    def rows(self, table: FactTable, tenant: UUID) -> list[dict[str, Any]]:
        found = self.server.tables[table.physical].rows.values()
        return in_order([{c.name: plain(row[c.name]) for c in table.columns} for row in found if row["tenant_id"] == tenant])


class Real:
    def __init__(self, url: str) -> None:
        self.url = url
        self.run(lambda client: make(client, TABLES, is_active=True))

    def run(self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        async def with_client() -> T:
            client = await connect(self.url)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(with_client())

    def rows(self, table: FactTable, tenant: UUID) -> list[dict[str, Any]]:
        names = [c.name for c in table.columns]
        query = f"SELECT {', '.join(names)} FROM {table.physical} FINAL WHERE tenant_id = {{tenant:UUID}}"
        found = self.run(lambda client: rows(client, query, {"tenant": tenant}))
        return in_order([{c.name: plain(v) for c, v in zip(table.columns, row, strict=True)} for row in found])


def plain(value: Any) -> Any:
    """A value of either engine in one form."""
    match value:
        case datetime():
            return round((value - EPOCH) / timedelta(milliseconds=1))
        case str():
            return value.encode()
        case dict():
            return [plain(v) for v in value.values()]
        case bytes() if not is_text(value):  # the client gives hexadecimal digits for it
            return value.hex().encode()
        case list() | tuple():
            return [plain(v) for v in value]
    return value


def is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in found:
        row.pop("_seal", None)
    times = ("occurred_at", "sampled_at")
    return sorted(found, key=lambda row: (str(row["event_id"]), [row.get(t, 0) for t in times], row.get("position", 0)))


@pytest.fixture(scope="module")
def real(stack: Stack) -> Iterator[Real]:
    name = f"t_{secrets.token_hex(6)}"
    with contextlib.closing(clickhouse_connect.get_client(dsn=stack.clickhouse)) as client:
        client.command(f"CREATE DATABASE {name}")
        yield Real(f"{stack.clickhouse.rsplit('/', 1)[0]}/{name}")
        client.command(f"DROP DATABASE {name} SYNC")


def sensible(value: Any) -> Any:
    """A value that the columns can hold: the engine knows no time behind 2299."""
    match value:
        case datetime():
            return min(value, LATEST)
        case tuple():
            return tuple(sensible(v) for v in value)
    return value


@st.composite
def facts(draw: st.DrawFn, table: FactTable) -> Event:
    event = draw(records(table.record.__name__))
    changed = {name: sensible(getattr(event, name)) for name in event.__dataclass_fields__}
    if isinstance(table, ArrayTable):
        count = draw(st.integers(0, 3))
        for name in table._arrays:
            one = changed[name][:1]
            changed[name] = tuple(list(one) * count) if one else ()
        count = min(len(changed[name]) for name in table._arrays)
        changed.update({name: changed[name][:count] for name in table._arrays})
    return cast(Event, replace(cast(Any, event), **changed))


async def inserted(table: FactTable, log: Sequence[ConsumerRecord], client: AsyncClient) -> list[int]:
    """The real store's way: halved until only what is unreadable is left; offsets of that."""
    store = ClickHouseStore(cast(Any, None), cast(Any, None), cast(Any, None), cast(Any, None), client)
    unreadable = await store._insert(Target(table.target, header(by_name()[table.record.__name__])), log)
    return [record.offset for record, _ in unreadable]


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_valid_records_become_the_same_rows_and_twice_is_once(real: Real, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(TABLES))
    tenant, ids = uuid4(), [uuid4() for _ in range(3)]
    log = FactLog()
    for event in data.draw(st.lists(facts(table), min_size=1, max_size=5)):
        second, which = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 2))
        log.append(encode(event, fact_meta(tenant, UUID(int=7), NOON + timedelta(seconds=second), ids[which])))
    cut = data.draw(st.integers(0, len(log.records)))
    blocks = [part for part in (log.records[cut:], log.records[:cut], log.records) if part]
    both: list[Simulated | Real] = [Simulated(), real]
    for place in both:
        for part in blocks:
            assert place.run(partial(inserted, table, part)) == []
    assert both[0].rows(table, tenant) == both[1].rows(table, tenant)


def spoil(value: bytes, how: tuple[str, int, int]) -> bytes:
    kind, at, byte = how
    place = PLACE_BYTES + at % max(1, len(value) - PLACE_BYTES)
    match kind:
        case "cut":
            return value[:place]
        case "longer":
            return value + bytes([byte]) * (1 + at % 5)
        case _:
            return value[:place] + b"\xff" * (len(value) - place)


spoiled = st.tuples(st.sampled_from(["cut", "longer", "noise"]), st.integers(0, 500), st.integers(0, 255))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_what_cannot_be_read_is_found_in_any_block(real: Real, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(TABLES))
    tenant, log = uuid4(), FactLog()
    for event in data.draw(st.lists(facts(table), min_size=1, max_size=6)):
        value = encode(event, fact_meta(tenant, UUID(int=7), NOON))
        how = data.draw(st.none() | spoiled)
        log.append(spoil(value, how) if how else value)
    both: list[Simulated | Real] = [Simulated(), real]
    refused = [place.run(partial(inserted, table, log.records)) for place in both]
    assert refused[0] == refused[1]
    assert both[0].rows(table, tenant) == both[1].rows(table, tenant)


def test_golden_bytes_of_older_schemas_have_the_defaults_of_newer_fields(real: Real) -> None:
    """Every version of every fact that a table shows."""
    tables = {table.record.__name__: table for table in TABLES}
    both: list[Simulated | Real] = [Simulated(), real]
    compared = 0
    for number in registered():
        table = tables.get(number.name)
        if table is None or not list(GOLDEN.glob(f"{number.id:04d}-*.json")):
            continue
        compared += 1
        value = golden(number.id)
        log = FactLog()
        log.append(value)
        tenant = UUID(value[5 + 38 : 5 + 74].decode())
        for place in both:

            async def insert(client: AsyncClient, log: FactLog = log, target: str = table.target, number: Any = number) -> None:
                body = block(header(number), 5, log.records)
                options = {"log_comment": "5", "input_format_avro_allow_missing_fields": 1}
                options |= {"input_format_defaults_for_omitted_fields": 1, "input_format_null_as_default": 0}
                await client.raw_insert(target, insert_block=body, fmt="Avro", settings=options)

            place.run(insert)
        assert both[0].rows(table, tenant) == both[1].rows(table, tenant), number
    assert compared > len(TABLES)


@pytest.mark.parametrize("seal", ["6", None])
def test_a_block_without_its_seal_is_refused(real: Real, seal: str | None) -> None:
    log = FactLog()
    table = TABLES[0]
    log.append(golden(by_name()[table.record.__name__].id))
    body = block(header(by_name()[table.record.__name__]), 5, log.records)

    async def insert(client: AsyncClient) -> int:
        with pytest.raises(DatabaseError) as refused:
            await client.raw_insert(
                table.target, insert_block=body, fmt="Avro", settings={"log_comment": seal} if seal is not None else {}
            )
        return refused.value.code or 0

    assert Simulated().run(insert) == real.run(insert) == 469


def golden(number: int) -> bytes:
    """Bytes of some record with this schema id."""
    written = json.loads(next(GOLDEN.glob(f"{number:04d}-*.json")).read_text())
    return bytes.fromhex(written["records"][0]["hex"])


def test_a_table_that_is_not_there_is_no_poison(real: Real) -> None:
    async def insert(client: AsyncClient) -> int:
        with pytest.raises(DatabaseError) as refused:
            await client.raw_insert("viewer_joined_5", insert_block=b"Obj\x01", fmt="Avro", settings={})
        return refused.value.code or 0

    assert Simulated().run(insert) == real.run(insert) == 60
