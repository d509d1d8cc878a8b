"""Warm start to ready, and the memory of everything, as `fw up` has them.

The first start on an empty directory makes the clusters and databases; the second, on the same directory, is the warm one.
Memory is PSS: what processes share is counted once.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.up import Up, free_port_base, up

SETTLE_SECONDS = 5.0
"""Until memory is read: what a start needs for a moment only is given back by then."""


def start(data_dir: Path, port_base: int) -> tuple[float, float]:
    """Seconds to ready, and MiB a moment later."""
    began = time.perf_counter()
    with up(data_dir, port_base=port_base) as stack:
        seconds = time.perf_counter() - began
        time.sleep(SETTLE_SECONDS)
        return seconds, memory(stack) / (1 << 20)


def memory(stack: Up) -> int:
    """Of the supervisor and every part, wherever in the process tree they are."""
    pids = {stack.process.pid, *stack.pids().values()}
    tree = {each for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))}
    return sum(each.memory_full_info().pss for each in tree)


def measure(rounds: int) -> list[dict[str, object]]:
    with TemporaryDirectory(prefix="fw-bench-") as directory:
        data_dir, port_base = Path(directory) / "data", free_port_base()
        first, _ = start(data_dir, port_base)
        warm = sorted(start(data_dir, port_base) for _ in range(rounds))
    seconds, mebibytes = warm[len(warm) // 2]
    return [
        {"name": "warm start to ready", "ours": round(seconds, 1), "unit": "s", "target": 10, "lower_is_better": True},
        {"name": "first start, on an empty directory", "ours": round(first, 1), "unit": "s", "lower_is_better": True},
        {"name": "memory (PSS) of everything", "ours": round(mebibytes), "unit": "MiB", "target": 2048, "lower_is_better": True},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    for result in measure(arguments.rounds):
        print(json.dumps(result) if arguments.json else f"{result['name']}: {result['ours']} {result['unit']}")


if __name__ == "__main__":
    main()
