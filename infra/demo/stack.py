"""The platform that the demo runs against: the one that is running in the data directory, or one that it starts itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from infra.embedded.errors import CannotStart
from infra.supervisor.layout import Directory
from infra.supervisor.state import is_running, running_stack

STOP_SECONDS = 60.0


class Stack(msgspec.Struct, frozen=True):
    """What the demo needs of the line that `fw up --json` prints."""

    graphql: str
    graphql_ws: str
    edge: str
    operator_token: str
    started_here: bool = False


@contextlib.asynccontextmanager
async def stack(data_dir: Path, port_base: int, say: Callable[[str], None]) -> AsyncIterator[Stack]:
    """A ready stack. One that was started here is stopped at the end; one that ran already is left alone."""
    directory = Directory(data_dir.resolve())
    if is_running(directory):
        say("using the platform that is running")
        yield await ready(directory)
        return
    say("starting the platform")
    command = [sys.executable, "-m", "infra.cli", "up", "--json", "--data-dir", str(data_dir), "--port-base", str(port_base)]
    # A session of its own: Ctrl-C is for us, and we stop it in order.
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            raise CannotStart("the platform did not start: `fw doctor` says why")
        yield msgspec.structs.replace(msgspec.json.decode(line, type=Stack), started_here=True)
    finally:
        if process.returncode is None:
            say("stopping the platform")
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), STOP_SECONDS)


async def ready(directory: Directory, within_seconds: float = 60.0) -> Stack:
    """The running stack, as soon as all of it is ready."""
    try:
        async with asyncio.timeout(within_seconds):
            while (known := running_stack(directory)) is None:  # noqa: ASYNC110  # another process's file
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise CannotStart(f"the platform in {directory.root} runs, but is not ready: `fw status` says what is missing") from None
    return msgspec.convert(dict(known), Stack)
