"""The gate in front of the log: ids are append-only, readers can follow every change, what is generated is current."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.gen import lock

Schema = dict[str, Any]
NAME = {"name": "note", "type": "string", "doc": "A remark.", "default": ""}


def git(*arguments: str) -> str | None:
    """Output of git in the project; None where it has nothing to say (no repository, no such path)."""
    done = subprocess.run(["git", "-C", str(lock.ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def test_what_is_generated_is_current() -> None:
    """The lock file, streams/generated.py and docs/events.md follow from the schemas."""
    command = [sys.executable, "-m", "infra.gen", "--check"]
    done = subprocess.run(command, cwd=lock.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_lock_only_ever_grows() -> None:
    committed = git("show", f"HEAD:{lock.LOCK.relative_to(lock.ROOT).as_posix()}")
    if committed is None:
        return  # an unpacked archive has no history to compare with
    before, now = json.loads(committed)["schemas"], lock.read()["schemas"]
    assert now[: len(before)] == before, "an id that was published means its schema for ever: restore the lock and run `make gen`"


def test_golden_bytes_only_ever_grow() -> None:
    changed = git("diff", "--name-status", "--diff-filter=MDR", "HEAD", "--", "tests/golden/*.json")
    assert not changed, "golden bytes are evidence: they are never changed or removed"


def test_ids_count_up_and_versions_too() -> None:
    entries = lock.read()["schemas"]
    assert [e["id"] for e in entries] == list(range(1, len(entries) + 1))
    seen: dict[object, int] = {}
    for entry in entries:
        seen[entry["subject"]] = seen.get(entry["subject"], 0) + 1
        assert entry["version"] == seen[entry["subject"]]


def test_a_changed_schema_gets_a_new_id_behind_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = lock.read()["schemas"]
    sources = [copy.deepcopy(dict(s)) for s in lock.sources()]
    changed = next(s for s in sources if s["name"] == "StreamRenamed")
    fields_of(changed).append(NAME)
    monkeypatch.setattr(lock, "sources", lambda: iter(sources))
    after = lock.appended({"schemas": entries})
    assert after[: len(entries)] == entries
    (new,) = after[len(entries) :]
    assert (new["id"], new["subject"]) == (len(entries) + 1, "fw.decisions.StreamRenamed")
    assert lock.appended({"schemas": after}) == after, "twice is once"


def fields_of(schema: Any) -> list[Schema]:
    found: list[Schema] = schema["fields"]
    return found


def source(name: str) -> Schema:
    return copy.deepcopy(next(dict(s) for s in lock.sources() if s["name"] == name))


def field(schema: Schema, name: str) -> Schema:
    return next(f for f in fields_of(schema) if f["name"] == name)


def without_default(schema: Schema) -> None:
    fields_of(schema).append({k: v for k, v in NAME.items() if k != "default"})


def renamed(schema: Schema) -> None:
    field(schema, "node_id")["name"] = "edge_id"


def retyped(schema: Schema) -> None:
    field(schema, "node_id")["type"] = "long"


def removed(schema: Schema) -> None:
    schema["fields"] = [f for f in fields_of(schema) if f["name"] != "node_id"]


OLD_RECORDS = "today's code could not read records that were already written"
OLD_READERS = "integrators with the previous schema could not read new records"


@pytest.mark.parametrize(
    ("change", "consequence"),
    [
        (without_default, OLD_RECORDS),
        (renamed, OLD_RECORDS),
        (retyped, OLD_RECORDS),
        (removed, OLD_READERS),
    ],
)
def test_a_change_that_some_reader_could_not_follow_is_refused(change: Callable[[Schema], None], consequence: str) -> None:
    old, new = source("IngestEnded"), source("IngestEnded")
    change(new)
    with pytest.raises(lock.Incompatible, match=f"fw.facts.IngestEnded: {consequence}: "):
        lock.check(new, old)


def test_a_symbol_that_stands_on_the_log_stays() -> None:
    """Avro alone would read such a record, with the enum's default in the symbol's place."""
    old, new = source("BufferChanged"), source("BufferChanged")
    field(new, "state")["type"]["symbols"].pop(0)
    with pytest.raises(lock.Incompatible, match=r"would forget what was already written: BufferState\.FULL"):
        lock.check(new, old)


def test_what_is_no_avro_schema_is_said_to_be_none() -> None:
    old, new = source("BufferChanged"), source("BufferChanged")
    field(new, "state")["type"]["default"] = "NOWHERE"
    with pytest.raises(lock.Incompatible, match=r"fw\.facts\.BufferChanged is no Avro schema: "):
        lock.check(new, old)


def test_a_field_with_a_default_is_accepted() -> None:
    old, new = source("IngestEnded"), source("IngestEnded")
    fields_of(new).append(NAME)
    lock.check(new, old)


def test_a_decision_may_lose_a_field_that_old_records_have() -> None:
    """Only facts are read by others than us: decisions need today's code to read all, not the reverse."""
    old, new = source("StreamDeleted"), source("StreamDeleted")
    new["fields"] = [f for f in fields_of(new) if f["name"] == "meta"]
    lock.check(new, old)


def test_the_compatibility_is_with_every_version_not_only_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """v1 has no `note`, v2 has it with a default; v3 without the default would break readers of v1's records."""
    first = source("StreamRenamed")
    second, third = copy.deepcopy(first), copy.deepcopy(first)
    fields_of(second).append(NAME)
    without_default(third)
    entries: list[dict[str, object]] = [
        {"id": n, "subject": "fw.decisions.StreamRenamed", "version": n, "schema": s} for n, s in ((1, first), (2, second))
    ]
    monkeypatch.setattr(lock, "sources", lambda: iter([third]))
    with pytest.raises(lock.Incompatible, match="already written"):
        lock.appended({"schemas": entries})


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    """A field without default in a copy of the schemas: `make gen` refuses, and writes nothing."""
    import shutil

    for folder in ("schemas", "infra", "streams", "docs"):
        shutil.copytree(lock.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "schemas" / "avro" / "decisions" / "StreamRenamed.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    without_default(schema)
    path.write_text(json.dumps(schema), encoding="utf-8")
    before = (tmp_path / "schemas" / "avro" / "ids.lock.json").read_bytes()
    command = [sys.executable, "-m", "infra.gen"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"refused: fw.decisions.StreamRenamed: {OLD_RECORDS}")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "schemas" / "avro" / "ids.lock.json").read_bytes() == before
