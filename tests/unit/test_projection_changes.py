"""Changes of a batch merge in memory as the table would merge them."""

from __future__ import annotations

from typing import Any

import asyncpg
from hypothesis import given
from hypothesis import strategies as st

from projections.changes import Changes
from projections.tables import Column, Merge, Table, insert, upsert

TABLE = Table(
    "things",
    key=("id",),
    columns=(
        Column("id", "int"),
        Column("last", "text"),
        Column("first", "text", Merge.FIRST),
        Column("most", "int", Merge.GREATEST),
        Column("who", "text", Merge.FOLLOW, follows="most"),
        Column("double", "int", generated="most * 2"),
    ),
)
Row = dict[str, Any]


class Statements:
    """A database that only remembers what it is told: these tests look at what is sent, not at what becomes of it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[object, ...]]] = []

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        self.told.append((query, args))
        return "INSERT"

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[asyncpg.Record]:
        raise NotImplementedError

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> asyncpg.Record | None:
        raise NotImplementedError


async def test_one_statement_a_batch_with_keys_in_order() -> None:
    db, changes = Statements(), Changes(TABLE)
    changes.put((2,), last="b")
    changes.put((1,), last="a")
    changes.put((2,), last="c")
    changes.first((1,), first="x")
    changes.first((1,), first="y")
    changes.greatest((1,), "most", 5, who="five")
    changes.greatest((1,), "most", 4, who="four")
    await changes.upsert(db)
    assert db.told == [(upsert(TABLE), ([1, 2], ["a", "c"], ["x", None], [5, None], ["five", None]))]


async def test_nothing_changed_is_no_statement() -> None:
    db = Statements()
    await Changes(TABLE).upsert(db)
    assert db.told == []


def merged_by_the_table(old: Row, new: Row) -> Row:
    """What the statement says, in Python."""
    out = dict(old)
    if new.get("last") is not None:
        out["last"] = new["last"]
    if old.get("first") is None:
        out["first"] = new.get("first")
    if new.get("most") is not None:
        if old.get("most") is None or (new["most"], new["who"]) > (old["most"], old["who"]):
            out["who"] = new["who"]
        out["most"] = max(x for x in (old.get("most"), new["most"]) if x is not None)
    return {name: value for name, value in out.items() if value is not None}


OPERATION = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc")),
    st.tuples(st.just("first"), st.sampled_from("abc")),
    st.tuples(st.just("greatest"), st.integers(0, 3), st.sampled_from("xyz")),
)


def rows_of(operations: list[Any]) -> Row:
    changes = Changes(TABLE)
    for operation in operations:
        match operation:
            case ("put", value):
                changes.put((1,), last=value)
            case ("first", value):
                changes.first((1,), first=value)
            case ("greatest", value, who):
                changes.greatest((1,), "most", value, who=who)
    return dict(changes._rows.get((1,), {}))


@given(st.lists(OPERATION, max_size=12), st.integers(0, 12))
def test_any_split_of_a_batch_merges_to_the_same_row(operations: list[Any], at: int) -> None:
    one, two = rows_of(operations[:at]), rows_of(operations[at:])
    assert merged_by_the_table(one, two) == rows_of(operations)


def test_statements_write_only_what_is_written() -> None:
    assert insert(TABLE).endswith("FROM unnest($1::int[], $2::text[], $3::text[], $4::int[], $5::text[])")
    assert "double" not in upsert(TABLE)
    assert "ON CONFLICT (id) DO UPDATE SET last = coalesce(excluded.last, old.last)" in upsert(TABLE)
    keys_only = Table("keys", key=("id",), columns=(Column("id", "int"),))
    assert upsert(keys_only).endswith("ON CONFLICT (id) DO NOTHING")


def test_a_table_is_named_plainly_so_that_every_build_can_have_it() -> None:
    assert "CREATE TABLE IF NOT EXISTS things (id int NOT NULL" in TABLE.ddl()
    assert "double int GENERATED ALWAYS AS (most * 2) STORED" in TABLE.ddl()
