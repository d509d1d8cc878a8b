"""Runs `fw` as a person does: a process, its output, its signals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.embedded.ports import is_free
from infra.supervisor.layout import Ports
from infra.supervisor.leftovers import marked
from projections import PROJECTIONS

SERVERS_ONLY = ("--no-commands", "--no-projections", "--no-archive", "--no-ingress", "--no-gateway", "--no-edge")
READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Up:
    """A running `fw up --json`."""

    process: subprocess.Popen[str]
    data_dir: Path
    line: Mapping[str, object]
    log: Path

    def stores(self) -> dict[str, str]:
        """Addresses of the three servers."""
        return {name: str(self.line[name]) for name in ("kafka", "postgres", "clickhouse")}

    def pids(self) -> dict[str, int]:
        return {name: entry["pid"] for name, entry in self.status()["processes"].items()}

    def status(self) -> dict[str, dict[str, dict[str, int]]]:
        known: dict[str, dict[str, dict[str, int]]] = json.loads((self.data_dir / "stack.json").read_text())
        return known

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(180)


def fw(*args: str, env: Mapping[str, str] | None = None, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        (sys.executable, "-m", "infra.cli", *args),
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without any FW_ setting of the caller."""
    return {key: value for key, value in os.environ.items() if not key.startswith("FW_")} | dict(more or {})


def free_port_base() -> int:
    """A shift for which every port of the map is free, and none is one that the system gives to outgoing connections: such a
    port may be taken between now and the start of the part that it is for."""
    while True:
        base = random.randrange(1000, 3_600)
        ports = Ports(base)
        fixed = [
            ports.gateway,
            ports.ingress,
            ports.ingress_tls,
            ports.ingress_metrics,
            ports.edge,
            ports.balancer,
            ports.kafka,
            ports.kafka_controller,
        ]
        fixed += [
            ports.postgres,
            ports.clickhouse,
            ports.commands_metrics,
            ports.archive_metrics,
            ports.policy_metrics,
            ports.reactors_metrics,
            *(ports.projection_metrics(n) for n in range(len(PROJECTIONS))),
        ]
        if all(map(is_free, fixed)):
            return base


@contextlib.contextmanager
def up(data_dir: Path, *flags: str, env: Mapping[str, str] | None = None, port_base: int | None = None) -> Iterator[Up]:
    """Started and ready; afterwards nothing of it is left, however the test ended."""
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "fw-up.err"
    base = free_port_base() if port_base is None else port_base
    command = (sys.executable, "-m", "infra.cli", "up", "--json", "--data-dir", str(data_dir), "--port-base", str(base), *flags)
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=environment(env), stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"fw up ended with {process.wait(60)}: {log.read_text()}"
        yield Up(process, data_dir, json.loads(line), log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        process.kill()
        process.wait()
        for left, _ in marked(data_dir):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        assert process.stdout is not None
        process.stdout.close()


def eventually(what: str, claim: object, timeout_seconds: float = 180.0) -> None:
    """Waits until the claim (a function of no arguments) holds."""
    assert callable(claim)
    end = time.monotonic() + timeout_seconds
    while not claim():
        assert time.monotonic() < end, f"after {timeout_seconds} s still not so: {what}"
        time.sleep(0.05)
