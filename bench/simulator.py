"""How fast the simulator runs three command workers that are killed, frozen and woken under load.

A step is one callback of its event loop, the unit of scheduling; a request is one that a client sent to the broker. Virtual
time says how much sooner than on a real cluster the same is over. Needs no servers.
"""

from __future__ import annotations

import argparse
import json
import time

from tests.sim.commands import KINDS, CommandRun, quiet

ROUNDS = 12
TARGET = 2000


def measure() -> list[dict[str, object]]:
    steps = requests = 0
    virtual = 0.0
    began = time.perf_counter()
    with quiet():
        for seed in range(ROUNDS):
            run = CommandRun(seed)
            hurt(run)
            run.settle()
            steps, requests, virtual = steps + run.loop.steps, requests + run.sim.network.requests, virtual + run.loop.time()
            run.end()
    seconds = time.perf_counter() - began
    return [
        {"name": "simulator, scheduler steps", "ours": round(steps / seconds), "unit": "steps/s", "target": TARGET},
        {"name": "simulator, requests to the broker", "ours": round(requests / seconds), "unit": "requests/s"},
        {
            "name": "simulator, virtual seconds a second",
            "ours": round(virtual / seconds, 1),
            "unit": "s/s",
            "baseline": 1,
            "baseline_is": "a real cluster",
        },
    ]


def hurt(run: CommandRun) -> None:
    for _ in range(3):
        run.do("start")
    run.do("time", 4)
    for n in range(200):
        run.do("send", n % 3, KINDS[n % 5], n % 2, n % 7, 0)
        if n % 40 == 20:
            run.do("trap", n, "EndTxn", "before", "freeze")
        if n % 50 == 30:
            run.do("kill", n)
            run.do("start")
        if n % 25 == 0:
            run.do("time", 5)
            run.do("wake", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for result in measure():
        print(json.dumps(result) if arguments.json else f"{result['name']}: {result['ours']:,} {result['unit']}")


if __name__ == "__main__":
    main()
