"""A program for tests of the Faust adapter: reads a topic and says as lines of JSON what it was handed.

`values` tells every batch; `crash`, `superseded`, `halted` raise at the third batch; `stuck` waits and `block` blocks the loop
for ever; `no_store` cannot load positions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Collection, Mapping, Sequence

from streams.errors import Superseded
from streams.faust_batches.app import BatchApp, run
from streams.faust_batches.fetched import TP, ConsumerRecord, Halted
from streams.telemetry import configure_logs


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--kafka", "--topic", "--group", "--mode"):
        parser.add_argument(name, required=True)
    parser.add_argument("--start", type=int, default=-1)
    parser.add_argument("--stall", type=float, default=60.0)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=4 << 20)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--linger", type=float, default=0.0)
    a = parser.parse_args()
    configure_logs("reader", "info")
    batches = 0

    async def load(tps: Collection[TP]) -> Mapping[TP, int | None]:
        if a.mode == "no_store":
            raise ConnectionError("no store")
        return dict.fromkeys(tps, a.start if a.start >= 0 else None)

    async def handle(tp: TP, records: Sequence[ConsumerRecord]) -> None:
        nonlocal batches
        batches += 1
        await asyncio.sleep(a.pause)
        if batches == 3:
            match a.mode:
                case "crash":
                    raise ValueError("poison")
                case "superseded":
                    raise Superseded("another is here")
                case "halted":
                    raise Halted("stop here")
                case "stuck":
                    await asyncio.sleep(3600)
                case "block":
                    time.sleep(3600)
        values = [(r.value or b"").decode() for r in records]
        print(json.dumps({"partition": tp.partition, "offsets": [r.offset for r in records], "values": values}), flush=True)

    app = BatchApp(
        a.group,
        kafka=a.kafka,
        load_offsets=load,
        max_records=a.records,
        max_bytes=a.bytes,
        linger_seconds=a.linger,
        stall_seconds=a.stall,
        session_seconds=3.0,
    )
    app.batches([a.topic], handle)
    run(app)


if __name__ == "__main__":
    main()
