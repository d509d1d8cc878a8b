"""Facts from the log into the archive and out of it again, beside reading them from Kafka.

Written and read by the code of production, each figure in a process of its own. The baseline of writing is fastavro with the
same schema and codec; that of reading is the Kafka client with the options that projections use.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import fastavro
import uvloop
from aiokafka import TopicPartition

from bench.empty_build import topics_of
from bench.facts import BUSY_PARTITIONS, facts, fill
from bench.faust_read import servers
from streams.archive.archiver import Archiver
from streams.archive.chain import load_chains
from streams.archive.container import SCHEMA, FileWriter
from streams.archive.files import ArchiveReader
from streams.archive.objects import Objects
from streams.faust_batches.fetched import TP, ConsumerRecord
from streams.kafka import reader
from streams.telemetry import configure_logs
from streams.topics import Topics

RANGE_BYTES = 64 << 20


async def from_kafka(kafka: str, topic: str) -> tuple[int, float]:
    """Records and seconds, partition after partition."""
    consumer, count = reader(kafka, "bench"), 0
    await consumer.start()
    began = time.perf_counter()
    for partition in range(BUSY_PARTITIONS):
        tp = TopicPartition(topic, partition)
        end = (await consumer.end_offsets([tp]))[tp]
        consumer.assign([tp])
        consumer.seek(tp, 0)
        while await consumer.position(tp) < end:
            count += len((await consumer.getmany(tp, timeout_ms=100, max_records=5000)).get(tp, ()))
    seconds = time.perf_counter() - began
    await consumer.stop()
    return count, seconds


async def from_archive(folder: str, topic: str) -> tuple[int, float]:
    objects, count = Objects(folder), 0
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        for chain in (await load_chains(objects, topic)).values():
            async for batch in ArchiveReader(objects, threads).read(chain, 0, chain.end):
                count += len(batch)
    return count, time.perf_counter() - began


async def into_archive(kafka: str, topics: Topics, folder: str) -> tuple[int, float]:
    archiver = Archiver(Objects(folder), kafka, [topics.facts], 3600, RANGE_BYTES)
    began = time.perf_counter()
    ends = await archiver.flush()
    return sum(ends.values()), time.perf_counter() - began


def encoded(count: int) -> tuple[float, float]:
    """Records a second made into a file: by our writer, and by fastavro."""
    from streams.archive.container import Archived

    tp = TP("fw.facts", 0)
    records: list[ConsumerRecord] = [
        Archived("fw.facts", 0, n, 1_795_000_000_000 + n // 3, b"k" * 16, value, tuple(about))
        for n, (value, about) in enumerate(facts(count))
    ]
    began = time.perf_counter()
    file = FileWriter(tp, 0)
    file.add(records)
    file.close()
    ours = count / (time.perf_counter() - began)
    rows = [
        {
            "offset": r.offset,
            "appended_at": r.timestamp,
            "key": r.key,
            "headers": [{"name": name, "value": value} for name, value in r.headers],
            "value": r.value,
        }
        for r in records
    ]
    began = time.perf_counter()
    fastavro.writer(io.BytesIO(), SCHEMA, rows, codec="zstandard", sync_interval=1 << 20)
    return ours, count / (time.perf_counter() - began)


def alone(*arguments: str) -> float:
    """A figure of this module, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.archive", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=300, check=True)
    count, seconds = json.loads(done.stdout.splitlines()[-1])
    return float(count / seconds)


async def prepared(kafka: str, count: int) -> list[dict[str, object]]:
    async with topics_of(kafka) as topics:
        await fill(kafka, topics.facts, facts(count))
        with TemporaryDirectory() as folder:
            into = await asyncio.to_thread(alone, "--into", kafka, topics.prefix, folder)
            archive, log = list[float](), list[float]()
            for _ in range(2):  # in turn, for other things happen on the machine, too
                archive.append(await asyncio.to_thread(alone, "--archive", folder, topics.facts.name))
                log.append(await asyncio.to_thread(alone, "--kafka", kafka, topics.facts.name))
            size = sum(f.stat().st_size for f in Path(folder).rglob("*.avro"))
    writer, fast = encoded(min(count, 200_000))
    return [
        {
            "name": "facts read from the archive",
            "ours": round(max(archive)),
            "baseline": round(max(log)),
            "unit": "facts/s",
            "baseline_is": "the same facts from Kafka, without decoding either",
            "target_ratio": 1,
        },
        {"name": "facts from Kafka into the archive", "ours": round(into), "unit": "facts/s"},
        {
            "name": "records made into an archive file",
            "ours": round(writer),
            "baseline": round(fast),
            "unit": "records/s",
            "baseline_is": "fastavro, same schema and codec",
        },
        {"name": "a fact in the archive", "ours": round(size / count, 1), "unit": "bytes", "lower_is_better": True},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--facts", type=int, default=600_000)
    parser.add_argument("--into", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--archive", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--kafka", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure_logs("bench", "error")
    if arguments.into:
        kafka, prefix, folder = arguments.into
        print(json.dumps(uvloop.run(into_archive(kafka, Topics(prefix), folder))))
    elif arguments.archive:
        print(json.dumps(uvloop.run(from_archive(*arguments.archive))))
    elif arguments.kafka:
        print(json.dumps(uvloop.run(from_kafka(*arguments.kafka))))
    else:
        with servers() as stack:
            results = uvloop.run(prepared(stack.kafka, arguments.facts))
        for result in results:
            print(json.dumps(result) if arguments.json else f"{result['name']}: {result['ours']:,} {result['unit']}")


if __name__ == "__main__":
    main()
