"""Depth, aliases, cost, and the cache of documents: bombs are refused in time that does not grow with what they would cost."""

from __future__ import annotations

import time

import pytest
from graphql import get_introspection_query
from hypothesis import given
from hypothesis import strategies as st

from gateway.documents import Documents, prepare
from gateway.executable import executable
from gateway.limits import MAX_ALIASES, MAX_COST, MAX_TEXT_LENGTH

SCHEMA = executable()


def code(text: str, **variables: object) -> str | None:
    """Why a query is refused; None where it is not."""
    prepared = prepare(SCHEMA, text)
    error = prepared.errors[0] if prepared.errors else prepared.too_costly(None, variables)
    return None if error is None or error.extensions is None else str(error.extensions["code"])


def test_ordinary_queries_pass() -> None:
    assert code("{ streams(first: 50) { totalCount edges { cursor node { id title viewers { now } } } } }") is None
    assert code(get_introspection_query(input_value_deprecation=True)) is None
    assert code("query($n: Int) { streams(first: $n) { nodes { id } } }", n=100) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", "GRAPHQL_VALIDATION_FAILED"),
        ("{" * 30_000, "GRAPHQL_PARSE_FAILED"),
        ("{a" * 3_000, "GRAPHQL_PARSE_FAILED"),
        ("{a" * 50 + "}" * 50, "QUERY_TOO_DEEP"),
        ("{" + " ".join(f"a{n}: viewer {{ kind }}" for n in range(MAX_ALIASES + 1)) + "}", "TOO_MANY_ALIASES"),
        ("{ streams(first: 100) { nodes { sessions(first: 100) { nodes { id } } } } }", "QUERY_TOO_COSTLY"),
        (
            "query($n: Int = 3) { streams(first: 100) { nodes { sessions(first: 100) { nodes { id } } } } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("{ " + "viewer { kind } " * 3000 + "}", "GRAPHQL_PARSE_FAILED"),
        (
            "{ __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
    ],
)
def test_what_could_hurt_is_refused(text: str, expected: str) -> None:
    assert code(text) == expected


def test_pages_whose_size_is_a_variable_cost_what_the_request_asks() -> None:
    text = "query($n: Int!, $m: Int = 2) { streams(first: $n) { nodes { sessions(first: $m) { nodes { id } } } } }"
    assert code(text, n=10) is None
    assert code(text, n=100, m=100) == "QUERY_TOO_COSTLY"
    assert code(text) is None  # an unknown $n counts as 100
    assert code(text, m=100) == "QUERY_TOO_COSTLY"
    assert code(text, n="100", m=100) == "QUERY_TOO_COSTLY"


def test_the_past_costs_more_than_the_present() -> None:
    def cost(text: str) -> int:
        return prepare(SCHEMA, text).measured[None].cost.of({})

    now, then = "{ streams { totalCount } }", '{ streams(asOf: "2026-01-01T00:00:00Z") { totalCount } }'
    assert cost(then) >= 20 * cost(now)
    aliases = " ".join(f'a{n}: streams(asOf: "2026-01-01T00:00:00Z") {{ totalCount }}' for n in range(10))
    assert code(f"{{ {aliases} }}") == "QUERY_TOO_COSTLY"
    assert code("{ history(first: 100) { nodes { type } } }") is None
    tokens = " ".join(
        f'a{n}: explain(token: "x", first: 100) {{ nodes {{ eventId type share topic offset }} }}' for n in range(20)
    )
    assert code(f"{{ {tokens} }}") is None
    assert code("{ streams(first: 100) { nodes { viewers { now } ingestTotals { count } sessions { nodes { id } } } } }") == (
        "QUERY_TOO_COSTLY"
    )


def test_fragment_bombs_are_measured_not_unfolded() -> None:
    depth = 30
    fragments = [f"fragment f{n} on Stream {{ ...f{n + 1} ...f{n + 1} }}" for n in range(depth)]
    bomb = "{ streams { nodes { ...f0 } } }" + " ".join(fragments) + f" fragment f{depth} on Stream {{ viewers {{ now }} }}"
    began = time.perf_counter()
    assert code(bomb) == "QUERY_TOO_COSTLY"
    assert time.perf_counter() - began < 60  # unfolded, it would take weeks
    cycle = "{ streams { nodes { ...a } } } fragment a on Stream { ...b } fragment b on Stream { ...a }"
    assert code(cycle) == "GRAPHQL_VALIDATION_FAILED"


@given(st.integers(1, 100), st.integers(1, 100))
def test_cost_is_the_same_for_a_literal_and_a_variable(n: int, m: int) -> None:
    literal = f"{{ streams(first: {n}) {{ nodes {{ sessions(first: {m}) {{ nodes {{ id }} }} }} }} }}"
    variable = "query($n: Int!, $m: Int!) { streams(first: $n) { nodes { sessions(first: $m) { nodes { id } } } } }"
    one, two = prepare(SCHEMA, literal), prepare(SCHEMA, variable)
    assert one.measured[None].cost.of({}) == two.measured[None].cost.of({"n": n, "m": m})
    assert code(literal) == code(variable, n=n, m=m)
    assert (code(literal) is None) == (one.measured[None].cost.of({}) <= MAX_COST)


def test_the_cache_is_bounded_and_remembers_refusals() -> None:
    documents = Documents(SCHEMA, max_entries=3)
    first = documents.prepared("{ nope }")
    assert documents.prepared("{ nope }") is first
    for n in range(5):
        documents.prepared(f"{{ viewer {{ kind }} }} # {n}")
    assert len(documents) == 3
    assert documents.prepared("{ nope }") is not first
    narrow = Documents(SCHEMA, max_characters=40)
    for n in range(5):
        narrow.prepared(f"{{ viewer {{ kind }} }} # {n}")
    assert len(narrow) == 1
    too_long = "{ viewer { kind } }" + " " * MAX_TEXT_LENGTH
    assert documents.prepared(too_long).errors[0].extensions == {"code": "QUERY_TOO_LONG"}
    assert len(documents) == 3
