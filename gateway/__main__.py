"""`python -m gateway`: serves the API until SIGTERM. Exit codes: 0 told to stop, 1 a part failed, 2 settings are wrong."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Final

import asyncpg
import uvicorn
import uvloop
from aiohttp import ClientError
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import OperationalError

from gateway.app import Application, State, opened
from gateway.balancer.protocol import BalancerApplication
from gateway.runtime import Runtime
from streams.listening import bind, listen
from streams.pki.authority import NoAuthority, load
from streams.settings import Settings, SettingsError, read_settings
from streams.telemetry import configure, log, serve_metrics

STOP_SECONDS = 5
PAUSE_SECONDS: Final = 0.5
NOT_THERE_YET: Final = (
    KafkaError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    OperationalError,
    ClientError,
    OSError,
)
"""How a server says that it is not there, or not yet: waiting here is quicker than being started again and again."""
logger = log("gateway")


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: stopping is decided in `serve`. Ready when it listens."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._state.ready = True


async def serve(settings: Settings) -> int:
    """Runs until a signal or until a part fails. The order is the correctness: nothing is served before the tails stand."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        listener = listen(settings.gateway)
        balancer_listener = None if settings.balancer is None else bind(settings.balancer)
    except OSError as error:
        addresses = f"{settings.gateway}, {settings.balancer}" if settings.balancer else str(settings.gateway)
        logger.error("cannot listen: another program has the port", listen=addresses, error=str(error))
        return 1
    async with AsyncExitStack() as stack:
        made = await _opened(stack, settings, stop)
        if made is None:
            return 0
        runtime, tasks = made
        state = State()
        servers = [(Server(_config(Application(runtime, state)), state), listener, "http")]
        if balancer_listener is not None:
            application = BalancerApplication(runtime, settings.balancer_fallback)
            servers.append((Server(_config(application), State()), balancer_listener, "balancer"))
        metrics = await serve_metrics(settings.metrics_port, lambda: state.ready, settings.metrics_host)
        serving = [asyncio.create_task(s.serve(sockets=[socket_of]), name=name) for s, socket_of, name in servers]
        stopping = asyncio.create_task(stop.wait(), name="signal")
        logger.info("serving", listen=str(settings.gateway))
        done, _ = await asyncio.wait([*serving, stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not stopping]
        for task in failed:
            logger.error("a part ended", part=task.get_name(), exc_info=task.exception())
        state.ready = False
        for server, *_ in servers:
            server.should_exit = True
        await asyncio.wait(serving, timeout=STOP_SECONDS + 1)
        stopping.cancel()
        if metrics is not None:
            metrics.close()
        return 1 if failed else 0


def _config(application: Application | BalancerApplication) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=512 << 10,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


async def _opened(
    stack: AsyncExitStack, settings: Settings, stop: asyncio.Event
) -> tuple[Runtime, Sequence[asyncio.Task[None]]] | None:
    """As soon as every server that the gateway needs is there; None when it is told to stop before."""
    while not stop.is_set():
        try:
            return await stack.enter_async_context(opened(settings))
        except NOT_THERE_YET as error:
            logger.warning("waits for a server", reason=repr(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PAUSE_SECONDS)
    return None


def main() -> int:
    try:
        settings = read_settings()
        if settings.authority is not None:
            load(*settings.authority)  # found out now, not when the servers are there
    except (SettingsError, NoAuthority) as problems:
        print(problems, file=sys.stderr)
        return 2
    configure("gateway", settings)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # a line for every socket that opens
    return uvloop.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
