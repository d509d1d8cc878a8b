"""The fast executor answers what graphql-core's answers: values, order, nulls and where errors are said to be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ariadne import ObjectType, QueryType, make_executable_schema
from graphql import ExecutionResult, GraphQLSchema, execute, parse, validate
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution import PLAIN, FastExecutor
from gateway.scalars import SCALARS

SDL = """
scalar DateTime scalar Long scalar Position scalar Cursor
type Query { things: [Thing!]! one: Thing }
type Thing {
  id: ID! name: String! note: String size: Long! flag: Boolean! at: DateTime parts: [Part!]! only: Part slow: Int later: Int!
}
type Part { id: ID! name: String! }
"""


@dataclass
class Part:
    id: object
    name: object


@dataclass
class Thing:
    id: object
    name: object
    note: object
    size: object
    flag: object
    at: object
    parts: object
    only: object


@dataclass
class Asked:
    things: list[Thing]
    plans: dict[Any, Any] | None = None


def make() -> GraphQLSchema:
    query, thing = QueryType(), ObjectType("Thing")
    query.set_field("things", lambda _, info: info.context.things)
    query.set_field("one", lambda _, info: info.context.things[0] if info.context.things else None)
    thing.set_field("slow", lambda source, _: 7)

    async def later(source: Thing, _: object) -> int:
        return len(str(source.name))

    thing.set_field("later", later)
    schema = make_executable_schema(SDL, *SCALARS, query, thing)
    for name in ("Thing", "Part"):
        for field_name, field in schema.type_map[name].fields.items():  # type: ignore[attr-defined]
            if field_name not in ("slow", "later"):
                field.extensions = {PLAIN: lambda source, field_name=field_name: getattr(source, field_name)}
    return schema


SCHEMA = make()
wrong = st.sampled_from([None, 3, "text", [], object(), True, 1 << 70])


def mostly(right: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.integers(0, 15).flatmap(lambda n: wrong if n == 0 else right)


parts = st.builds(Part, mostly(st.uuids()), mostly(st.text(max_size=3)))
things = st.builds(
    Thing,
    id=mostly(st.uuids() | st.text(max_size=3)),
    name=mostly(st.text(max_size=3)),
    note=mostly(st.none() | st.text(max_size=3)),
    size=mostly(st.integers(0, 1 << 40)),
    flag=mostly(st.booleans()),
    at=mostly(st.none() | st.just(datetime(2026, 1, 2, tzinfo=UTC))),
    parts=mostly(st.lists(parts, max_size=3)),
    only=mostly(st.none() | parts),
)
leaf = st.sampled_from(["id", "name", "note", "size", "flag", "at", "x: name", "slow", "later", "__typename", "...F"])
directed = leaf.map(lambda f: f"{f} @include(if: $yes)")
nested = st.sampled_from(["parts { id name }", "only { name again: id }", "only { ... on Part { id } __typename }"])
selection = st.lists(leaf | directed | nested, min_size=1, max_size=6).map(" ".join)


@given(st.lists(things, max_size=4), selection, st.booleans(), st.booleans())
async def test_it_answers_like_the_ordinary_executor(rows: list[Thing], fields: str, yes: bool, kept: bool) -> None:
    text = f"query($yes: Boolean! = true) {{ things {{ id {fields} }} one {{ {fields} }} z: one {{ flag @skip(if: $yes) id }} }}"
    text += " fragment F on Thing { note flag }"
    document = parse(text)
    if "...F" not in fields:
        document = parse(text.rpartition(" fragment")[0])
    assert not [e for e in validate(SCHEMA, document) if "conflict" not in e.message and "never used" not in e.message]

    async def run(executor: type[FastExecutor] | None, plans: dict[Any, Any] | None) -> ExecutionResult:
        result = execute(
            SCHEMA, document, context_value=Asked(rows, plans), variable_values={"yes": yes}, executor_class=executor
        )
        return result if isinstance(result, ExecutionResult) else await result

    plans: dict[Any, Any] | None = {} if kept and "@" not in text else None
    expected = await run(None, None)
    for _ in range(2):
        found = await run(FastExecutor, plans)
        assert found.data == expected.data
        assert str(found.data) == str(expected.data)  # the order of fields too
        assert described(found) == described(expected)


def described(result: ExecutionResult) -> set[tuple[str, str]]:
    return {(str(e.path), str(e.locations)) for e in result.errors or ()}


async def test_plans_that_are_kept_serve_other_rows() -> None:
    document = parse("{ things { id name parts { id } later } }")
    plans: dict[Any, Any] = {}
    for n in range(3):
        rows = [Thing(UUID(int=n), f"n{n}", None, 1, True, None, [Part(f"p{n}", "p")], None)]
        result = execute(SCHEMA, document, context_value=Asked(rows, plans), executor_class=FastExecutor)
        assert not isinstance(result, ExecutionResult)
        found = await result
        row = {"id": str(UUID(int=n)), "name": f"n{n}", "parts": [{"id": f"p{n}"}], "later": 2}
        assert found.data == {"things": [row]}
    assert len(plans) == 1
