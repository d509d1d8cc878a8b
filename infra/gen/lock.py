"""Appends new schema versions to the id lock file, and refuses those that old or new readers could not cope with.

Invariant: an entry is never changed or removed. BACKWARD_TRANSITIVE for every subject (today's code reads all that was ever
written), FULL_TRANSITIVE for facts, which integrators read with whatever version they have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import Schema as AvroSchema
from avro.schema import parse

ROOT = Path(__file__).resolve().parents[2]
AVRO = ROOT / "schemas" / "avro"
LOCK = AVRO / "ids.lock.json"
FOLDERS = ("decisions", "outcomes", "commands", "facts", "policy")

Schema = Mapping[str, object]


class Incompatible(Exception):
    """A schema changed in a way that some reader could not follow."""


def meta_source() -> Schema:
    """The record that every other begins with."""
    meta: Schema = json.loads((AVRO / "Meta.avsc").read_text(encoding="utf-8"))
    return meta


def shared() -> Mapping[str, Schema]:
    """What stands beside the folders: types that several records have a field of, by full name."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(AVRO.glob("*.avsc")))
    return {subject_of(schema): schema for schema in found}


def sources() -> Iterator[Schema]:
    """Every record of `schemas/avro`, complete (shared types written out), by folder and name."""
    types = shared()
    for folder in FOLDERS:
        for path in sorted((AVRO / folder).glob("*.avsc")):
            schema = json.loads(path.read_text(encoding="utf-8"))
            if schema["name"] != path.stem or schema["namespace"] != f"fw.{folder}":
                raise Incompatible(f"{path.name}: the record must be called fw.{folder}.{path.stem}")
            for field in schema["fields"]:
                field["type"] = written_out(field["type"], types)
            yield schema


def written_out(kind: object, types: Mapping[str, Schema]) -> object:
    """A field's type with the shared type that it names in the name's place."""
    if isinstance(kind, list):
        return [written_out(branch, types) for branch in kind]
    return types.get(kind, kind) if isinstance(kind, str) else kind


def subject_of(schema: Schema) -> str:
    return f"{schema['namespace']}.{schema['name']}"


def check(new: Schema, old: Schema) -> None:
    """Raises Incompatible, saying which reader could not read what, and why."""
    pairs = [(new, old, "today's code could not read records that were already written")]
    if str(new["namespace"]) == "fw.facts":
        pairs.append((old, new, "integrators with the previous schema could not read new records"))
    for reader, writer, consequence in pairs:
        checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
        result = checker.get_compatibility(reader=parsed(reader), writer=parsed(writer))
        if result.compatibility != SchemaCompatibilityType.compatible:
            raise Incompatible(f"{subject_of(new)}: {consequence}: {'; '.join(sorted(result.messages))}")
    # Avro lets a reader take an enum's default for a symbol that it lost. The record would be read, and what it said forgotten.
    if lost := symbols(old) - symbols(new):
        raise Incompatible(f"{subject_of(new)}: today's code would forget what was already written: {', '.join(sorted(lost))}")


def parsed(schema: Schema) -> AvroSchema:
    try:
        return parse(json.dumps(schema))
    except AvroException as error:
        raise Incompatible(f"{subject_of(schema)} is no Avro schema: {error}") from error


def symbols(kind: object) -> frozenset[str]:
    """Every symbol of every enum in a schema, as Enum.SYMBOL."""
    if isinstance(kind, list):
        return frozenset[str]().union(*map(symbols, kind))
    if not isinstance(kind, dict):
        return frozenset()
    if kind["type"] == "enum":
        return frozenset(f"{kind['name']}.{s}" for s in kind["symbols"])
    inner = [f["type"] for f in kind.get("fields", ())]
    return symbols([*inner, kind.get("items", "null")])


def appended(lock: Mapping[str, list[dict[str, object]]]) -> list[dict[str, object]]:
    """The lock's entries and, behind them, one for every schema that is new or changed."""
    entries = list(lock["schemas"])
    for schema in sources():
        subject = subject_of(schema)
        known = [e for e in entries if e["subject"] == subject]
        if known and known[-1]["schema"] == schema:
            continue
        for entry in known:
            old = entry["schema"]
            assert isinstance(old, dict)
            check(schema, old)
        entries.append({"id": len(entries) + 1, "subject": subject, "version": len(known) + 1, "schema": dict(schema)})
    return entries


def read() -> dict[str, list[dict[str, object]]]:
    if not LOCK.exists():
        return {"schemas": []}
    lock: dict[str, list[dict[str, object]]] = json.loads(LOCK.read_text(encoding="utf-8"))
    return lock


def text(entries: list[dict[str, object]]) -> str:
    """One entry a line, so that a diff shows lines added and nothing else."""
    lines = ",\n".join(json.dumps(e, separators=(",", ":"), ensure_ascii=False) for e in entries)
    return '{"schemas":[\n' + lines + "\n]}\n"
