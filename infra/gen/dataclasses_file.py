"""Writes `streams/generated.py`: one frozen dataclass per record, and the functions between it and fastavro's dicts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

PRIMITIVE = {"string": "str", "long": "int", "int": "int", "boolean": "bool", "bytes": "bytes", "double": "float"}
LOGICAL = {"uuid": "UUID", "timestamp-millis": "datetime"}
GROUPS = {"decisions": "Decision", "outcomes": "Outcome", "commands": "Command", "facts": "Fact"}
POLICIES = "policy"  # no events: they have no meta
HEAD = '''"""Written by `make gen` from schemas/avro: do not edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

'''

Schema = Mapping[str, object]


class Writer:
    """Collects classes in the order in which they must stand."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}
        self.readers: list[str] = []
        self.writers: list[str] = []

    def type_of(self, kind: object) -> str:
        """Python type of an Avro type; writes the classes that it needs."""
        if isinstance(kind, str):
            return PRIMITIVE[kind]
        if isinstance(kind, list):
            assert kind[0] == "null", f"only [null, T] unions: {kind}"
            return f"{self.type_of(kind[1])} | None"
        assert isinstance(kind, dict)
        match kind["type"]:
            case "array":
                return f"tuple[{self.type_of(kind['items'])}, ...]"
            case "enum":
                self.enum(kind)
                return str(kind["name"])
            case "record":
                self.record(kind)
                return str(kind["name"])
            case primitive:
                return LOGICAL.get(str(kind.get("logicalType")), PRIMITIVE.get(str(primitive), ""))

    def enum(self, schema: Schema) -> None:
        symbols = schema["symbols"]
        assert isinstance(symbols, list)
        body = "".join(f'    {s} = "{s}"\n' for s in symbols)
        self.classes.setdefault(str(schema["name"]), f"class {schema['name']}(StrEnum):\n{body}")

    def record(self, schema: Schema) -> None:
        name, fields = str(schema["name"]), schema["fields"]
        if name in self.classes:
            return
        assert isinstance(fields, list)
        lines, read, write = [], [], []
        # `meta` stands beside the event (Recorded), not in it: deciders say what happened, shells say when and by whom.
        typed = [(f, self.type_of(f["type"])) for f in fields if f["name"] != "meta"]
        # A default makes the constructor's parameter optional, so those without one come first.
        for field, kind in sorted(typed, key=lambda p: "default" in p[0]):
            default = f" = {self.default(field['default'], kind)}" if "default" in field else ""
            lines.append(f"    {field['name']}: {kind}{default}\n")
        for field, _ in typed:
            get = f'd["{field["name"]}"]'
            read.append(f"        {field['name']}={self.reading(field['type'], get)},\n")
            write.append(f'        "{field["name"]}": {self.writing(field["type"], "e." + str(field["name"]))},\n')
        doc = textwrap.fill(str(schema["doc"]), 118, initial_indent="    ", subsequent_indent="    ").strip()
        doc = f'    """{doc}"""\n\n' if lines else f'    """{doc}"""\n'
        self.classes[name] = f"@dataclass(frozen=True, slots=True)\nclass {name}:\n{doc}{''.join(lines)}"
        arg, obj = ("d", "e") if typed else ("_", "_")
        made = f"{name}(\n{''.join(read)}    )" if typed else f"{name}()"
        self.readers.append(f"def read_{name}({arg}: Any) -> {name}:\n    return {made}\n")
        self.writers.append(f"def write_{name}({obj}: {name}) -> dict[str, Any]:\n    return {{\n{''.join(write)}    }}\n")

    @staticmethod
    def default(value: object, kind: str) -> str:
        if value == []:
            return "()"
        return f"{kind}.{value}" if isinstance(value, str) and kind not in ("str", "str | None") else repr(value)

    @staticmethod
    def reading(kind: object, get: str) -> str:
        if isinstance(kind, list) and isinstance(kind[1], dict) and kind[1]["type"] in ("record", "enum", "array"):
            return f"None if {get} is None else {Writer.reading(kind[1], get)}"
        if isinstance(kind, dict) and kind["type"] == "array":
            items = kind["items"]
            if isinstance(items, dict) and items["type"] == "record":
                return f"tuple(read_{items['name']}(x) for x in {get})"
            return f"tuple({get})"
        if isinstance(kind, dict) and kind["type"] == "enum":
            return f"{kind['name']}({get})"
        if isinstance(kind, dict) and kind["type"] == "record":
            return f"read_{kind['name']}({get})"
        return get

    @staticmethod
    def writing(kind: object, get: str) -> str:
        if isinstance(kind, list) and isinstance(kind[1], dict) and kind[1]["type"] in ("record", "array"):
            written = Writer.writing(kind[1], get)
            # In a union fastavro takes a tuple for a branch and its value.
            return f"None if {get} is None else {f'list({written})' if written == get else written}"
        if isinstance(kind, dict) and kind["type"] == "array":
            items = kind["items"]
            if isinstance(items, dict) and items["type"] == "record":
                return f"[write_{items['name']}(x) for x in {get}]"
            return get
        if isinstance(kind, dict) and kind["type"] == "record":
            return f"write_{kind['name']}({get})"
        return get


def dataclasses_file(meta: Schema, schemas: list[Schema]) -> str:
    """The whole text of `streams/generated.py` for the newest version of every record."""
    writer = Writer()
    writer.record(meta)
    for schema in schemas:
        writer.record(schema)
    names = [str(s["name"]) for s in schemas]
    unions = []
    for folder, group in GROUPS.items():
        members = [str(s["name"]) for s in schemas if s["namespace"] == f"fw.{folder}"]
        unions.append(f"{group} = {' | '.join(members)}\n")
    policies = " | ".join(str(s["name"]) for s in schemas if s["namespace"] == f"fw.{POLICIES}")
    unions.append(f"Policy = {policies}\nEvent = {' | '.join(GROUPS.values())}\nRecord = Event | Policy\n")
    table = "".join(f'    "{n}": read_{n},\n' for n in names)
    wtable = "".join(f"    {n}: write_{n},\n" for n in names)
    return (
        HEAD
        + "\n\n".join(writer.classes.values())
        + "\n\n"
        + "".join(unions)
        + "\n\n"
        + "\n\n".join(writer.readers)
        + "\n\n"
        + "\n\n".join(writer.writers)
        + f"\n\nREADERS: Final[Mapping[str, Callable[[Any], Record]]] = {{\n{table}}}\n"
        + f"WRITERS: Final[Mapping[type, Callable[[Any], dict[str, Any]]]] = {{\n{wtable}}}\n"
    )
