"""An agent as a process beside a media server, the model's or a real one, cut off from its platform."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.journal import Journal
from edge_agent.journal_file import PolicyRow, Upkeep
from streams.codec import decode, encode_policy
from streams.generated import Event
from streams.ingress.credentials import issue
from tests.edge_node import STREAM, stream_policy
from tests.edge_process import request
from tests.ingress import SECRET_KEY

FW = (sys.executable, "-c", "from infra.cli import main; main()")
PATIENCE_SECONDS = 240


@dataclass
class Beside:
    """Its state directory is made by `with_a_policy`."""

    state_dir: Path
    api_url: str
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("FW_")}
        return {
            **env,
            "FW_EDGE_LISTEN": f"127.0.0.1:{self.port}",
            "FW_EDGE_INGRESS": "127.0.0.1:1",
            "FW_EDGE_STATE_DIR": str(self.state_dir),
            "FW_EDGE_MIST_API": self.api_url,
        }

    async def start(self) -> None:
        with (self.state_dir / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edge_agent", env=self.environment, stderr=log
            )

    async def kill(self) -> None:
        if self.process and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def fw(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *FW, "edge", *arguments, env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
        return process.returncode or 0, out.decode(), err.decode()

    async def figures(self) -> dict[str, float]:
        assert self.process
        assert self.process.returncode is None, (self.state_dir / "log").read_text()[-3000:]
        try:
            _, body = await request(self.port, "GET", "/metrics")
        except (OSError, EOFError):
            return {}
        lines = (line.rpartition(" ") for line in body.decode().splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def until(self, is_so: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_so(found := await self.figures()):
                await asyncio.sleep(0.1)
            return found

    async def set_up(self) -> None:
        await self.until(
            lambda f: (
                f.get("fw_edge_mist_is_reachable") == 1
                and f["fw_edge_mist_missing_steps"] == 0
                and f["fw_edge_mist_steps_total"] > 0
            )
        )

    def facts(self) -> list[Event]:
        """All that was ever said: nothing is acknowledged, so it is all there."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state_dir / 'journal.db'}?mode=ro", uri=True)) as connection:
            found = [decode(value) for (value,) in connection.execute("SELECT value FROM journal ORDER BY seq")]
        assert len({meta.event_id for _, meta in found}) == len(found)
        return [event for event, _ in found]


async def with_a_policy(state_dir: Path) -> None:
    """A directory as an agent leaves it that once had a policy, of one stream, and a credential."""
    state_dir.mkdir()
    (state_dir / "credential").write_text(issue(SECRET_KEY, "edge-9", None))
    journal = Journal(state_dir / "journal.db")
    journal.open()
    row = PolicyRow(STREAM, encode_policy(stream_policy()), b"")
    await journal.kept(Upkeep(policies=(row,), known=(("policy_is_known", "yes"),)))
    journal.close()
