"""The platform under test: started here with proxies between its parts, or one that runs already.

Invariant: one that was started here is stopped here, and its proxies stand before it starts and until it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from infra.chaos.proxy import Proxy
from infra.chaos.up import PROXIED, targets
from infra.embedded.errors import CannotStart
from infra.embedded.ports import free_ports, is_free
from infra.supervisor.layout import Directory, Ports
from infra.supervisor.state import is_running

START_SECONDS: Final = 300.0
STOP_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Platform:
    """Where everything is reached: `graphql`, `edge`, `ingress` through proxies where there are any, the stores directly."""

    data_dir: Path
    graphql: str
    graphql_ws: str
    edge: str
    ingress: str
    kafka: str
    postgres: str
    clickhouse: str
    operator_token: str
    secret_key: str
    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    edge_direct: str = ""

    def stack(self) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
        """What the supervisor says of its parts; it is replaced as a whole, so it is never half there."""
        found: Mapping[str, Mapping[str, Mapping[str, object]]] = json.loads(Directory(self.data_dir).stack.read_text())
        return found

    def parts(self) -> list[str]:
        return sorted(self.stack()["processes"])

    def pid(self, part: str) -> int:
        return int(str(self.stack()["processes"][part]["pid"]))

    def metrics(self, part: str) -> str | None:
        found = self.stack()["processes"][part].get("metrics")
        return str(found) if found else None

    def is_ready(self, part: str) -> bool:
        return self.stack()["parts"][part]["phase"] == "ready"

    async def all_ready(self, within_seconds: float) -> None:
        """TimeoutError names what is not."""
        try:
            async with asyncio.timeout(within_seconds):
                while not all(map(self.is_ready, self.parts())):  # noqa: ASYNC110  # another process's file
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            missing = [part for part in self.parts() if not self.is_ready(part)]
            raise TimeoutError(f"after {within_seconds:.0f} s still not ready: {', '.join(missing)}") from None

    async def edge_ready(self, within_seconds: float) -> None:
        """Returns when the edge agent says that it can write its journal and knows its streams."""
        async with httpx.AsyncClient(timeout=5) as client, asyncio.timeout(within_seconds):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.edge_direct}/readyz")).is_success:
                        return
                await asyncio.sleep(POLL_SECONDS)

    async def edge_backlog(self) -> int:
        """Facts that the edge agent still keeps for the platform."""
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.get(f"{self.edge_direct}/readyz")
            return int(answer.json()["facts_waiting"])


def described(data_dir: Path, stack: Mapping[str, object], proxies: Mapping[str, Proxy]) -> Platform:
    """From what `fw up` says of itself."""

    def through(address: object, part: str) -> str:
        text = str(address)
        return text.replace(f":{proxies[part].target}", f":{proxies[part].port}", 1) if part in proxies else text

    return Platform(
        data_dir=data_dir,
        graphql=through(stack["graphql"], "gateway"),
        graphql_ws=through(stack["graphql_ws"], "gateway"),
        edge=through(stack["edge"], "edge"),
        edge_direct=str(stack["edge"]),
        ingress=through(stack["ingress"], "ingress"),
        kafka=through(stack["kafka"], "kafka"),
        postgres=str(stack["postgres"]),
        clickhouse=str(stack["clickhouse"]),
        operator_token=str(stack["operator_token"]),
        secret_key=str(stack["secret_key"]),
        proxies=proxies,
    )


@contextlib.asynccontextmanager
async def platform(data_dir: Path, say: Callable[[str], None]) -> AsyncIterator[Platform]:
    """The running platform of the directory, else one that is started in it. Raises CannotStart."""
    directory = Directory(data_dir.resolve())
    if is_running(directory):
        if not directory.stack.exists():
            raise CannotStart(f"the platform in {directory.root} is not ready: `fw status` says what is missing")
        say("using the platform that is running: without proxies, so nothing can be cut or slowed down")
        yield described(directory.root, json.loads(directory.stack.read_text()), {})
        return
    async with contextlib.AsyncExitStack() as open_:
        ports = _free_map()
        listening = dict(zip(PROXIED, free_ports(len(PROXIED)), strict=True))
        proxies = {name: Proxy(name, listening[name], target) for name, target in targets(ports).items()}
        for proxy in proxies.values():
            await open_.enter_async_context(proxy)
        say(f"starting the platform in {directory.root}")
        await open_.enter_async_context(_started(directory, ports, listening))
        yield described(directory.root, json.loads(directory.stack.read_text()), proxies)
        for proxy in proxies.values():
            proxy.heal()  # or nothing could be stopped in order
        say("stopping the platform")


@contextlib.asynccontextmanager
async def _started(directory: Directory, ports: Ports, via: Mapping[str, int]) -> AsyncIterator[None]:
    directory.root.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "infra.chaos.up", "--data-dir", str(directory.root), "--port-base", str(ports.base))
    log = directory.root / "up.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, "--via", json.dumps(via), stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True
        )
    try:
        assert process.stdout
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        if not line:
            raise CannotStart(f"the platform did not start; the last that it said: {log.read_text()[-500:]}")
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


def _free_map() -> Ports:
    """A shift for which the whole map of ports is free, below what systems take for outgoing connections."""
    for start in free_ports(40):
        ports = Ports(start % 2500)
        wanted = [
            *targets(ports).values(),
            ports.kafka_controller,
            ports.ingress_tls,
            ports.ingress_metrics,
            ports.commands_metrics,
        ]
        if all(map(is_free, [*wanted, *map(ports.projection_metrics, range(20))])):
            return ports
    raise CannotStart("no 40 free ports were found: end what listens on them")
