"""The schema against the log: every record that subscribers may see has a type of its name, and every field can be read."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from ariadne import convert_camel_case_to_snake
from graphql import GraphQLObjectType, get_named_type, parse, validate

from commands import AGGREGATES
from gateway.executable import NAMES, executable, published
from gateway.limits import COSTS
from streams import generated
from streams.registry import by_name

SCHEMA = executable()
NOT_OF_A_STREAM = {"CommandHandled"} | {event.__name__ for a in AGGREGATES if a.name != "stream" for event in a.events}


def test_every_fact_and_decision_about_a_stream_is_published() -> None:
    on_topics = {
        name
        for name, known in by_name().items()
        if known.schema.get("topic") in ("fw.facts", "fw.decisions") and name not in NOT_OF_A_STREAM
    }
    assert published(SCHEMA) == on_topics


@pytest.mark.parametrize("name", sorted(published(SCHEMA)))
def test_every_field_of_an_event_is_a_field_of_its_record(name: str) -> None:
    kind = SCHEMA.type_map[name]
    assert isinstance(kind, GraphQLObjectType)
    known = {f.name for f in fields(getattr(generated, name))}
    for field in kind.fields:
        if field not in ("cursor", "eventId", "occurredAt"):
            assert NAMES.get((name, field), convert_camel_case_to_snake(field)) in known, f"{name}.{field}"
    assert not {"keyHash", "tokenHash"} & set(kind.fields)


def test_events_can_be_selected_side_by_side() -> None:
    """Fields of one name have one type in all events, so a client may select them in fragments beside each other."""
    seen: dict[str, str] = {}
    for kind in SCHEMA.get_implementations(SCHEMA.type_map["StreamEvent"]).objects:  # type: ignore[arg-type]
        for name, field in kind.fields.items():
            assert seen.setdefault(name, str(field.type)).rstrip("!") == str(field.type).rstrip("!"), f"{kind.name}.{name}"


def test_costs_name_fields_that_exist() -> None:
    for kind, field in COSTS:
        assert field in SCHEMA.type_map[kind].fields  # type: ignore[attr-defined]


def test_lists_are_bounded() -> None:
    """A field that gives a connection takes `first`."""
    for kind in SCHEMA.type_map.values():
        if isinstance(kind, GraphQLObjectType):
            for name, field in kind.fields.items():
                if get_named_type(field.type).name.endswith("Connection"):
                    assert "first" in field.args, f"{kind.name}.{name}"


EXPLORER = Path(__file__).parents[2] / "gateway" / "explorer" / "explorer.js"
EXAMPLES = re.findall(r"tab\(`(.*?)`", EXPLORER.read_text(), re.DOTALL)


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda document: re.findall(r"^\w+ (\w+)", document, re.MULTILINE)[0])
def test_the_explorers_examples_are_documents_of_the_schema_and_fit_their_pane(document: str) -> None:
    assert validate(SCHEMA, parse(document)) == []
    assert max(map(len, document.splitlines())) <= 82


def test_the_explorer_has_examples() -> None:
    assert len(EXAMPLES) >= 9
