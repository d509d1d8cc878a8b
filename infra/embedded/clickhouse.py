"""The ClickHouse engine as a server process: how it is launched. What it serves is in `clickhouse_server`."""

from __future__ import annotations

import http.client
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.server import Launch


@dataclass(frozen=True, slots=True)
class ClickHouse:
    data_dir: Path
    port: int
    password: str
    memory_mb: int = 1024
    name: str = "clickhouse"
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)

    def url(self, database: str = "default") -> str:
        return f"http://default:{self.password}@127.0.0.1:{self.port}/{database}"

    def prepare(self, log: Path) -> Launch:  # noqa: ARG002
        self.data_dir.mkdir(parents=True, exist_ok=True)
        argv = (sys.executable, "-m", "infra.embedded.clickhouse_server", "--data-dir", str(self.data_dir / "store"))
        # the password by environment, not on a command line that every user can list; TZ is the engine's time zone
        env = os.environ | {"TZ": "UTC", "FW_CLICKHOUSE_PASSWORD": self.password}
        return Launch((*argv, "--port", str(self.port), "--memory-mb", str(self.memory_mb)), env=env)

    def ready(self, pid: int) -> bool:  # noqa: ARG002
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().read() == b"Ok.\n"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
