"""A real edge agent as a process of its own, against a real ingress and Kafka: started, killed, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from infra.embedded.ports import free_ports
from streams.codec import decode
from streams.generated import Event, Meta
from streams.ingress.credentials import issue
from streams.topics import Topics
from tests.ingress import SECRET_KEY, records

READY_SECONDS = 180


@dataclass
class EdgeProcess:
    """The agent of node `edge-1`. `async with` starts and ends it."""

    state_dir: Path
    ingress: str
    tenants: list[UUID] | None = None  # None: a node of the operator
    port: int = 0
    process: asyncio.subprocess.Process | None = None
    more_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> EdgeProcess:
        self.port = self.port or free_ports(1)[0]
        self.state_dir.mkdir(parents=True, exist_ok=True)
        (self.state_dir / "credential").write_text(issue(SECRET_KEY, "edge-1", self.tenants))
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def start(self) -> None:
        env = {
            **os.environ,
            "FW_EDGE_NODE_ID": "edge-1",
            "FW_EDGE_LISTEN": f"127.0.0.1:{self.port}",
            "FW_EDGE_INGRESS": self.ingress,
            "FW_EDGE_STATE_DIR": str(self.state_dir),
            "FW_EDGE_CREDENTIAL_FILE": str(self.state_dir / "credential"),
            **self.more_env,
        }
        with (self.state_dir / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(sys.executable, "-m", "edge_agent", env=env, stderr=log)

    async def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        assert self.process
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 180)

    async def ready(self) -> None:
        """Returns when /readyz says so."""
        async with asyncio.timeout(READY_SECONDS):
            while (await self._status("/readyz"))[0] != 200:
                await asyncio.sleep(0.02)

    async def gauges(self) -> Mapping[str, float]:
        """/metrics, by name and labels as text."""
        _, body = await self._status("/metrics")
        lines = (line.rpartition(" ") for line in body.decode().splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def drained(self) -> None:
        """Returns when no fact waits for the platform any more."""
        async with asyncio.timeout(READY_SECONDS):
            while (await self.gauges()).get("fw_edge_journal_rows") != 0:
                await asyncio.sleep(0.02)

    async def post(self, trigger: str, body: str, *, uuid: str, pid: int = 100, attempt: int = 1, **more: str) -> tuple[int, str]:
        headers = {**more, "X-Trigger-UUID": uuid, "X-Instance": "InstanceA", "X-PID": str(pid), "X-Attempt": str(attempt)}
        status, answer = await request(self.port, "POST", f"/trigger/{trigger}", body.encode(), headers)
        return status, answer.decode()

    async def status(self) -> tuple[int, bytes]:
        """/readyz"""
        return await self._status("/readyz")

    async def _status(self, path: str) -> tuple[int, bytes]:
        try:
            return await request(self.port, "GET", path)
        except (OSError, EOFError):
            assert self.process
            if self.process.returncode is not None:
                raise AssertionError((self.state_dir / "log").read_text()[-3000:]) from None
            return 0, b""


async def request(
    port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """One request over a connection of its own; the answer to its last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        fields = {**(headers or {}), "Host": "edge", "Content-Length": str(len(body))}
        writer.write(f"{method} {path} HTTP/1.1\r\n".encode())
        writer.write("".join(f"{k}: {v}\r\n" for k, v in fields.items()).encode("latin-1") + b"\r\n" + body)
        answer = await reader.read()
    finally:
        writer.close()
    head, separator, content = answer.partition(b"\r\n\r\n")
    if not separator:
        raise EOFError("closed without an answer")
    return int(head.split(b" ")[1]), content


async def facts_on_log(kafka: str, topics: Topics) -> list[tuple[Event, Meta]]:
    """Everything that nodes said, partition after partition; what stands twice is given twice."""
    found = [*await records(kafka, topics.facts), *await records(kafka, topics.nodes)]
    return [decode(record.value) for record in found if record.value]
