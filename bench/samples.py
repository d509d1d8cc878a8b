"""Samples from Kafka to their table: records that carry a hundred each, against one sample a record, through the same worker."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from bench.empty_build import topics_of
from bench.facts import EVENT_ID, fill, worker_rate
from bench.faust_read import servers
from streams.codec import encode, headers
from streams.generated import ClientSamples, Meta
from streams.ids import derive, new_id

ARRAY = 100


def client_samples(length: int, window: int) -> tuple[bytes, list[tuple[str, bytes]]]:
    started = datetime.now(UTC) + timedelta(seconds=5 * window)
    tenant = new_id()
    meta = Meta(new_id(), tenant, derive(tenant, secrets.randbelow(50)), 0, tenant, tenant, started, "node:n1")
    counters = [tuple(secrets.randbelow(1 << 30) for _ in range(length)) for _ in range(8)]
    event = ClientSamples(
        "n1",
        started,
        tuple(secrets.token_hex(32) for _ in range(length)),
        tuple(started + timedelta(milliseconds=n) for n in range(length)),
        ("HLS",) * length,
        *counters,
    )
    return encode(event, meta), list(headers(event, meta))


def records(count: int, length: int) -> Iterator[tuple[bytes, list[tuple[str, bytes]]]]:
    """Records of so many samples, each with an event id of its own."""
    made = [client_samples(length, window) for window in range(max(1, 10_000 // length // 10))]
    for n in range(count):
        value, about = made[n % len(made)]
        text = bytearray(value)
        text[EVENT_ID] = str(uuid4()).encode()
        yield bytes(text), about


async def measure(samples: int, length: int) -> float:
    """Samples per second."""
    with servers() as stack:
        async with topics_of(stack.kafka) as topics:
            count = await fill(stack.kafka, topics.samples, records(samples // length, length))
            return length * await worker_rate("samples", stack, topics, count)


async def run(samples: int) -> tuple[float, float]:
    return await measure(samples, ARRAY), await measure(samples // 20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--samples", type=int, default=2_000_000)
    arguments = parser.parse_args()
    ours, baseline = asyncio.run(run(arguments.samples))
    result = {
        "name": f"samples in arrays of {ARRAY} from Kafka to their table",
        "ours": round(ours),
        "baseline": round(baseline),
        "unit": "samples/s",
        "baseline_is": "one sample per record, the same worker",
        "target": 1_500_000,
    }
    text = f"{result['name']}: {ours:,.0f} samples/s, one a record {baseline:,.0f}, {ours / baseline:.1f}x"
    print(json.dumps(result) if arguments.json else text)


if __name__ == "__main__":
    main()
