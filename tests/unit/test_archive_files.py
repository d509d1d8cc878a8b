"""Files of the archive, their manifests, and what their health is called; no server needed."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.supervisor.archive_health import sentence
from streams.archive.archiver import Part, what_is_wrong
from streams.archive.chain import Chain, load_chains
from streams.archive.check import check, contents
from streams.archive.container import Archived, FileWriter, RowReader, blocks
from streams.archive.errors import ArchiveDamaged, ArchiveError, ArchiveUnreachable
from streams.archive.manifest import read_manifest
from streams.archive.objects import Objects
from streams.archive.prune import delete_range, old_ranges
from streams.faust_batches.fetched import TP
from streams.topics import Topics
from tests.archive_files import archive
from tests.up import fw

TOPIC = Topics().samples
HEADERS = st.lists(st.tuples(st.text(max_size=9), st.one_of(st.binary(max_size=200), st.none())), max_size=3).map(tuple)
RECORDS = st.lists(
    st.tuples(
        st.integers(1, 1 << 20),
        st.integers(-1, 1 << 45),
        st.one_of(st.none(), st.binary(max_size=300)),
        st.one_of(st.none(), st.binary(max_size=20_000)),
        HEADERS,
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.integers(0, 1 << 50))
def test_any_record_is_read_as_it_was_written_by_us_and_by_any_avro_library(drawn: list[Any], first: int) -> None:
    records, offset = list[Archived](), first
    for step, appended_ms, key, value, headers in drawn:
        offset += step
        records.append(Archived("t", 7, offset, appended_ms, key, value, headers))
    file = FileWriter(TP("t", 7), first)
    file.add(records[:3])
    file.add(records[3:])
    data, reader = file.close(), RowReader(TP("t", 7))
    assert [record for count, rows in blocks(data) for record in reader.rows(count, rows)] == records
    rows: list[Any] = list(fastavro.reader(io.BytesIO(data)))
    assert [(r["offset"], r["key"], r["value"]) for r in rows] == [(r.offset, r.key, r.value) for r in records]
    assert [tuple((h["name"], h["value"]) for h in r["headers"]) for r in rows] == [r.headers for r in records]
    assert (file.first_appended_ms, file.last_appended_ms) == (
        min(r.timestamp for r in records),
        max(r.timestamp for r in records),
    )


def test_the_same_range_makes_the_same_bytes() -> None:
    def made(cut: int) -> bytes:
        file = FileWriter(TP("t", 0), 5)
        records = [Archived("t", 0, n, n, b"k", bytes(1000), ()) for n in range(5, 3000)]
        file.add(records[:cut])
        file.add(records[cut:])
        return file.close()

    assert made(1) == made(2500)


async def findings(folder: Path) -> list[tuple[str, str]]:
    objects = Objects(str(folder))
    return [(f.kind, f.path) async for f in check(objects, await contents(objects))]


async def test_verify_names_what_is_damaged_missing_and_nobodys(tmp_path: Path) -> None:
    first, second, third = await archive(tmp_path, TOPIC)
    assert await findings(tmp_path) == []
    good = (tmp_path / str(second.object_path)).read_bytes()
    (tmp_path / str(second.object_path)).write_bytes(good[:-1] + b"x")
    assert await findings(tmp_path) == [("damaged", second.object_path)]
    (tmp_path / str(second.object_path)).unlink()
    assert await findings(tmp_path) == [("missing", second.object_path)]
    (tmp_path / str(second.object_path)).write_bytes(good)
    (tmp_path / second.path).unlink()  # what a crash between the two leaves, were it the last
    assert await findings(tmp_path) == [("missing", third.path), ("orphan", second.object_path)]
    (tmp_path / first.path).write_text("{}")
    assert ("damaged", first.path) in await findings(tmp_path)


async def test_a_hole_between_manifests_is_never_read_over(tmp_path: Path) -> None:
    _, second, _ = await archive(tmp_path, TOPIC)
    (tmp_path / second.path).unlink()
    chain = (await load_chains(Objects(str(tmp_path)), TOPIC.name))[0]
    with pytest.raises(ArchiveDamaged, match="should begin at 10"):
        await chain.covering(0)


async def test_pruning_takes_whole_old_ranges_from_the_oldest_on_and_never_decisions(tmp_path: Path) -> None:
    manifests, objects = await archive(tmp_path, TOPIC, ranges=4), Objects(str(tmp_path))
    cut = datetime.fromtimestamp((manifests[1].last_appended_ms or 0) / 1000 + 1, UTC)
    old = await old_ranges(objects, TOPIC, cut)
    assert list(old) == manifests[:2]
    for manifest in old:
        await delete_range(objects, manifest)
    assert await findings(tmp_path) == []
    assert (await load_chains(objects, TOPIC.name))[0].range == (20, 40)
    assert manifests[3] not in await old_ranges(objects, TOPIC, datetime.now(UTC)), "the last says where the archive ends"
    with pytest.raises(ArchiveError, match="kept for ever"):
        await old_ranges(objects, Topics().decisions, datetime.now(UTC))


def test_a_manifest_speaks_only_of_the_range_of_its_name(tmp_path: Path) -> None:
    first, second, _ = asyncio.run(archive(tmp_path, TOPIC))
    with pytest.raises(ArchiveDamaged, match="another range"):
        read_manifest(second.path, first.encoded())


def test_an_unknown_storage_is_refused_with_what_to_do() -> None:
    with pytest.raises(ArchiveUnreachable, match="FW_ARCHIVE_URL"):
        Objects("ftp://somewhere/archive")


def test_the_alarm_is_the_time_until_the_log_deletes_what_is_not_archived(tmp_path: Path) -> None:
    chain = Chain(Objects(str(tmp_path)), TP(TOPIC.name, 0), [0], 10)
    part = Part(TOPIC, chain, log_begins=0, log_ends=15, oldest_ms=0)
    assert part.seconds_to_loss(now=100) == TOPIC.retention_ms / 1000 - 100
    assert Part(Topics().decisions, chain, log_ends=15, oldest_ms=0).seconds_to_loss(now=100) is None
    part.log_begins = 12
    assert "offsets 10 to 12" in str(what_is_wrong(part))
    assert not Part(TOPIC, chain, log_ends=10).is_due(1e12, 1, 1)
    assert part.is_due(now=3600, range_seconds=3600, range_bytes=1 << 30)
    assert not part.is_due(now=3599, range_seconds=3600, range_bytes=1 << 30)
    part.record_bytes = 1 << 20
    assert part.is_due(now=1, range_seconds=3600, range_bytes=5 << 20)


def test_the_doctor_reads_the_metrics() -> None:
    assert sentence('fw_archive_lag_records{topic="t"} 5.0\nfw_archive_problems 0.0\n') is None
    assert "12,345 offsets" in str(sentence('fw_archive_lost_records{topic="t"} 12345.0\n'))
    assert "In 2.0 h" in str(
        sentence('fw_archive_seconds_to_loss{topic="t"} 7200.0\nfw_archive_seconds_to_loss{topic="u"} 9e9\n')
    )
    assert "cannot be archived now" in str(sentence("fw_archive_problems 1.0\n"))


def test_the_command_line_says_what_is_wrong_and_what_it_would_delete(tmp_path: Path) -> None:
    _, second, _ = asyncio.run(archive(tmp_path, TOPIC))
    env = {"FW_ARCHIVE_URL": str(tmp_path), "FW_DATA_DIR": str(tmp_path / "data")}
    would = fw("archive", "prune", "--topic", TOPIC.name, "--older-than", "90d", env=env)
    assert (would.returncode, "would delete 2 ranges" in would.stdout) == (0, True), would.stderr
    kept = fw("archive", "prune", "--topic", "fw.decisions", "--older-than", "90d", "--yes", env=env)
    assert (kept.returncode, "kept for ever" in kept.stderr) == (1, True)
    assert asyncio.run(findings(tmp_path)) == []
    (tmp_path / str(second.object_path)).write_bytes(b"")
    done = fw("archive", "verify", "--json", env=env)
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"]) == (1, False)
    assert [(f["kind"], f["path"]) for f in said["findings"]] == [("damaged", second.object_path)]
