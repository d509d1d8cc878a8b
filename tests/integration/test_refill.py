"""A log that is written again has every record where it was, whatever lay in between."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from infra.backup.contents import Backup
from infra.backup.refill import Refill, writer
from infra.backup.restore import Progress, Servers, restore_log
from infra.embedded.errors import CannotStart
from infra.embedded.stack import Stack
from streams.archive.chain import Range, load_chains
from streams.archive.files import ArchiveReader
from streams.archive.objects import Objects
from streams.kafka import reader
from streams.topics import Topic, Topics
from tests.archive_files import archive
from tests.archive_log import Writer, archiver_of, everything, history_of, on_the_log, settings_of


async def some_history(writer: Writer, seed: int) -> None:
    """Transactions that end well or not, some without a record, and plain records, in an order of chance."""
    chance = random.Random(seed)
    for _ in range(40):
        match chance.randrange(5):
            case 0:
                await writer.plain(chance.randint(1, 3))
            case 1 | 2:
                await writer.committed(chance.randint(1, 4))
            case 3:
                await writer.aborted(chance.randint(1, 3))
            case _:
                await writer.marker_only()


async def refill(kafka: str, archive: Path, source: Topic, target: Topic, partition: int) -> int:
    """Writes what the archive has of one topic's partition to another's; where it ends."""
    objects = Objects(str(archive))
    chain = (await load_chains(objects, source.name))[partition]
    plain, fillers, ends = writer(kafka, None), writer(kafka, f"refill-{target.name}-{partition}"), reader(kafka, "t")
    for client in (plain, fillers, ends):
        await client.start()
    try:
        work = Refill(plain, fillers, ends, TopicPartition(target.name, partition))
        with ThreadPoolExecutor(1) as threads:
            async for batch in ArchiveReader(objects, threads).read(chain, 0, chain.end):
                for n in range(0, len(batch), 50):  # as if blocks were small
                    await work.write(batch[n : n + 50])
        await work.fill(chain.end, 0)
        assert (await ends.end_offsets([TopicPartition(target.name, partition)]))[
            TopicPartition(target.name, partition)
        ] == chain.end
        return work.position
    finally:
        for client in (plain, fillers, ends):
            await client.stop()


async def test_every_record_has_its_offset_again(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    settings, source, target = settings_of(stack, topics, tmp_path), topics.decisions, topics.facts
    async with Writer(stack.kafka, source, 0) as old:
        await some_history(old, 1)
    async with Writer(stack.kafka, source, 1) as old:  # nothing but a marker before the first record, and one at the end
        await old.marker_only()
        await old.plain(2)
        await old.marker_only()
    async with Writer(stack.kafka, source, 2) as old:  # nothing but one marker
        await old.marker_only()
    await archiver_of(settings, source).flush()
    for partition in range(3):
        await refill(stack.kafka, tmp_path, source, target, partition)
        assert await on_the_log(stack.kafka, target, partition) == await on_the_log(stack.kafka, source, partition)


async def test_facts_that_the_log_would_delete_stay_in_the_archive_alone(stack: Stack, topics: Topics, tmp_path: Path) -> None:
    topic, settings = topics.samples, settings_of(stack, topics, tmp_path)
    manifests = await archive(tmp_path, topic, ranges=4, days=5)  # 9, 8, 7 and 6 days old; samples are kept for 7
    backup = Backup(
        made_at="t",
        topic_prefix=topics.prefix,
        positions={topic.name: {0: 40}},
        empty_until={topic.name: {1: 7}},
        secrets=None,
        secret_key_id="",
        keys={},
    )
    servers, quiet = Servers(stack.kafka, stack.postgres), Progress(lambda _, __: None, lambda _: None)
    archive_only = await restore_log(servers, topics, backup, {(topic.name, 0): manifests}, str(tmp_path), quiet)
    assert archive_only == {topic.name: 30}
    assert [s[0] for s in await on_the_log(stack.kafka, topic, 0, 30)] == list(range(30, 40))
    async with history_of(settings) as history:
        assert await history.ranges(topic) == {p: {0: Range(0, 40), 1: Range(7, 7)}.get(p, Range(0, 0)) for p in range(12)}
        assert [s[0] for s in await everything(history, topic, 0)] == list(range(40))
    with pytest.raises(CannotStart, match="is not empty"):
        await restore_log(servers, topics, backup, {}, str(tmp_path), quiet)
