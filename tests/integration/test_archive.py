"""The archive over real Kafka: what was appended is read again as it was, from archive and log as one stream."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest

from infra.embedded.stack import Stack
from streams.archive.archiver import archived_topics
from streams.archive.chain import Range
from streams.archive.errors import ArchiveDamaged, ArchiveError, HistoryGap
from streams.archive.history import History
from streams.archive.manifest import Manifest, manifest_path
from streams.archive.objects import Objects
from streams.codec import PREFIX, encode
from streams.faust_batches.fetched import TP
from streams.topics import Topic, Topics
from tests.archive_log import Writer, archiver_of, between, delete_before, everything, history_of, on_the_log, settings_of
from tests.fact_log import fact_meta, fresh
from tests.projection_log import NOON, created


async def test_any_log_is_read_again_as_it_was_also_after_the_log_forgot_it(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    settings, topic = settings_of(stack, topics, tmp_path), topics.facts
    async with Writer(stack.kafka, topic, 3) as writer:
        await writer.plain(10)
        await writer.committed(3)
        await writer.aborted(2)
        await writer.committed(1)
        await archiver_of(settings, topic).flush()
        await writer.aborted(4)
        await archiver_of(settings, topic).flush()
        await writer.plain(5)
        await writer.committed(2)
    before = await on_the_log(stack.kafka, topic, 3)
    async with history_of(settings) as history:
        archived, whole = (await history.archived(topic))[3], (await history.ranges(topic))[3]
        assert archived == Range(0, 10 + 4 + 3 + 2 + 5)
        assert whole == Range(0, archived.end + 8)
        assert await everything(history, topic, 3) == before
        for first, end in ((0, 1), (4, 12), (9, 17), (archived.end - 1, archived.end + 2), (archived.end, whole.end)):
            assert await between(history, topic, 3, first, end) == [s for s in before if first <= s[0] < end]
        await delete_before(stack.kafka, topic, 3, archived.end)
        assert await everything(history, topic, 3) == before
    async with history_of(settings) as history:
        assert await everything(history, topic, 3) == before
        assert await everything(history, topic, 4) == []
        for offset, appended_ms, *_ in before:
            at = datetime.fromtimestamp(appended_ms / 1000, UTC)
            assert await history.offset_at(topic, 3, at) == offset
        assert await history.offset_at(topic, 3, datetime(2020, 1, 1, tzinfo=UTC)) == 0
        assert await history.offset_at(topic, 3, datetime(2100, 1, 1, tzinfo=UTC)) == whole.end


async def test_ranges_are_cut_by_size_and_follow_one_another(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    settings, topic = settings_of(stack, topics, tmp_path), topics.samples
    async with Writer(stack.kafka, topic, 0) as writer:
        for _ in range(3):
            await writer.plain(20, size=60_000)
            await writer.committed(2)
    closed = list[Manifest]()
    await archiver_of(settings, topic, range_bytes=1 << 20).flush(closed=closed.append)
    assert len(closed) >= 3
    assert [m.first for m in closed] == [0, *(m.end for m in closed[:-1])]
    assert all(m.raw_bytes < 6 << 20 for m in closed)
    async with history_of(settings) as history:
        assert await everything(history, topic, 0) == await on_the_log(stack.kafka, topic, 0)


async def test_two_workers_at_once_leave_one_chain(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    settings, topic = settings_of(stack, topics, tmp_path), topics.facts
    async with Writer(stack.kafka, topic, 1) as writer:
        await writer.plain(300)
    rivals = [archiver_of(settings, topic, range_bytes=size) for size in (900, 2000, 900)]
    ends = await asyncio.gather(*(rival.flush() for rival in rivals))
    assert {end[TP(topic.name, 1)] for end in ends} == {300}
    async with history_of(settings) as history:
        assert await everything(history, topic, 1) == await on_the_log(stack.kafka, topic, 1)


async def test_what_the_log_deleted_unarchived_is_said_and_never_skipped(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    settings, topic = settings_of(stack, topics, tmp_path), topics.facts
    async with Writer(stack.kafka, topic, 2) as writer:
        await writer.plain(5)
        await archiver_of(settings, topic).flush()
        await writer.plain(10)
        await delete_before(stack.kafka, topic, 2, 9)
        async with history_of(settings) as history:
            with pytest.raises(HistoryGap, match="offsets 5 to 9 are gone"):
                await everything(history, topic, 2)
            with pytest.raises(ArchiveError, match="--accept-gap"):
                await archiver_of(settings, topic).flush()
            assert (await history.archived(topic))[2] == Range(0, 5)
        await archiver_of(settings, topic).flush(accept_gap=True)
    async with history_of(settings) as history:
        assert (await history.archived(topic))[2] == Range(0, 15)
        with pytest.raises(HistoryGap, match="offsets 5 to 9 are gone"):
            await everything(history, topic, 2)
        assert [s[0] for s in await between(history, topic, 2, 9, 15)] == list(range(9, 15))


async def test_an_archive_of_another_log_gets_nothing_added(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    other = Topics(topics.prefix + "x")
    async with Writer(stack.kafka, topics.facts, 0) as writer:
        await writer.plain(5)
    await archiver_of(settings_of(stack, topics, tmp_path), topics.facts).flush()
    (tmp_path / topics.facts.name).rename(tmp_path / topics.nodes.name)
    for manifest in (tmp_path / topics.nodes.name / "00000").glob("*.json"):
        manifest.write_text(manifest.read_text().replace(topics.facts.name, topics.nodes.name))
    del other
    with pytest.raises(ArchiveError, match="belongs to another log"):
        await archiver_of(settings_of(stack, topics, tmp_path), topics.nodes).flush()


async def collect(history: History, topic: Topic, into: list[int]) -> None:
    async for batch in history.read(topic, 0, 0, 100):
        into += [record.offset for record in batch]


async def test_a_damaged_file_gives_no_record(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    settings, topic = settings_of(stack, topics, tmp_path), topics.facts
    async with Writer(stack.kafka, topic, 0) as writer:
        for _ in range(2):
            await writer.plain(50)
            await archiver_of(settings, topic).flush()
    first, second = sorted((tmp_path / topic.name / "00000").glob("*.avro"))
    good = second.read_bytes()
    for harm in (good[:-40] + b"\x00" + good[-39:], good[:100], b""):
        second.write_bytes(harm)
        got = list[int]()
        async with history_of(settings) as history:
            with pytest.raises(ArchiveDamaged, match=second.name):
                await collect(history, topic, got)
        assert got == list(range(50))
    second.unlink()
    async with history_of(settings) as history:
        with pytest.raises(ArchiveDamaged, match="missing"):
            await between(history, topic, 0, 60, 70)
        assert len(await between(history, topic, 0, 0, 50)) == 50
    assert first.exists()


async def test_any_avro_library_reads_a_file_and_finds_the_schemas_in_it(stack: Stack, topics: Topics, tmp_path: Path) -> None:

    settings, topic = settings_of(stack, topics, tmp_path), topics.decisions
    tenant, stream = fresh()
    value = encode(created("Lobby"), fact_meta(tenant, stream, NOON))
    async with Writer(stack.kafka, topic, 0) as writer:
        await writer.plain_producer.send_and_wait(topic.name, value, key=b"k", partition=0, headers=[("h", b"v"), ("h", b"w")])
    await archiver_of(settings, topic).flush()
    (file,) = (tmp_path / topic.name / "00000").glob("*.avro")
    container = fastavro.reader(io.BytesIO(file.read_bytes()))
    row: Any = next(container)
    assert (row["offset"], row["key"], row["value"]) == (0, b"k", value)
    assert row["headers"] == [{"name": "h", "value": b"v"}, {"name": "h", "value": b"w"}]
    number = PREFIX.unpack_from(value)[1]
    schema = json.loads(container.metadata["frameworks.schemas"])[str(number)]
    event: Any = fastavro.schemaless_reader(io.BytesIO(value[PREFIX.size :]), fastavro.parse_schema(schema), None)
    assert event["title"] == "Lobby"


async def test_every_topic_but_commands_is_archived(topics: Topics) -> None:
    names = {t.name.removeprefix(topics.prefix) for t in archived_topics(topics)}
    assert {"fw.decisions", "fw.facts", "fw.nodes", "fw.samples", "fw.dead-letters"} <= names
    assert "fw.commands" not in names


async def test_only_one_of_two_manifests_of_a_range_counts(tmp_path: Path) -> None:
    objects = Objects(str(tmp_path))
    path = manifest_path(TP("t", 0), 0)
    assert sorted(await asyncio.gather(*(objects.put(path, bytes([n])) for n in range(8)))) == [False] * 7 + [True]
