"""Bytes that were written once are read for ever, and mean what they meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams import codec
from streams.registry import by_id, registered
from tests.golden.values import Json, written
from tests.golden.write import FOLDER, path_of, reading

FILES = sorted(FOLDER.glob("*.json"))


def still_says(now: Json, then: Json, where: str) -> None:
    """Everything that was read then is read now; fields that came later may stand beside it."""
    match now, then:
        case dict(), dict():
            for name, value in then.items():
                assert name in now, f"{where}.{name} is not read any more"
                still_says(now[name], value, f"{where}.{name}")
        case list(), list():
            assert len(now) == len(then), where
            for n, (one, other) in enumerate(zip(now, then, strict=True)):
                still_says(one, other, f"{where}[{n}]")
        case _:
            assert now == then, where


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_committed_bytes_read_as_they_did(path: Path) -> None:
    file = json.loads(path.read_text(encoding="utf-8"))
    assert by_id()[file["id"]].subject == file["subject"], "a schema id means the same record for ever"
    assert len(file["records"]) == 2
    for record in file["records"]:
        value = bytes.fromhex(record["hex"])
        assert codec.schema_id(value) == file["id"]
        still_says(reading(value), record["reads_as"], file["subject"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_committed_bytes_are_what_their_schema_writes(path: Path) -> None:
    """The lock's schema of an id is the one with which its golden bytes were written."""
    file = json.loads(path.read_text(encoding="utf-8"))
    assert [r["hex"] for r in file["records"]] == [written(by_id()[file["id"]], full).hex() for full in (True, False)]


def test_every_schema_id_has_golden_bytes() -> None:
    missing = [path_of(schema).name for schema in registered() if not path_of(schema).exists()]
    assert not missing, "run `make gen` (python -m tests.golden.write) and commit the new files"
    assert {p.name for p in FILES} == {path_of(schema).name for schema in registered()}
