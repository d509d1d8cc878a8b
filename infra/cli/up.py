"""`fw up`: everything on this machine, supervised, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated

import typer
from rich.console import Console

from infra.cli.options import DEFAULT_DATA_DIR, DataDir, PortBase
from infra.embedded.errors import CannotStart
from infra.supervisor import checks
from infra.supervisor.display import Display, Lines, Screen
from infra.supervisor.layout import Directory, Ports
from infra.supervisor.leftovers import MARK, end_leftovers
from infra.supervisor.parts import Plan, environment, plan
from infra.supervisor.state import acquire, authority, edge_credential, read_secrets, write_private
from infra.supervisor.status import PartStatus
from infra.supervisor.supervisor import Supervisor
from infra.supervisor.upkeep import upkeep

SAME_WISH_SECONDS = 1.0
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when all is ready.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port_base: PortBase = 0,
    no_kafka: Annotated[bool, typer.Option("--no-kafka", help="Runs elsewhere: FW_KAFKA_BOOTSTRAP.")] = False,
    no_postgres: Annotated[bool, typer.Option("--no-postgres", help="Runs elsewhere: FW_POSTGRES_URL.")] = False,
    no_clickhouse: Annotated[bool, typer.Option("--no-clickhouse", help="Runs elsewhere: FW_CLICKHOUSE_URL.")] = False,
    no_commands: Annotated[
        bool, typer.Option("--no-commands", help="Without the command worker, the reactors and the policy.")
    ] = False,
    no_projections: Annotated[bool, typer.Option("--no-projections", help="Without the projections.")] = False,
    no_archive: Annotated[bool, typer.Option("--no-archive", help="Without the worker that archives the log.")] = False,
    no_ingress: Annotated[bool, typer.Option("--no-ingress", help="Without the gRPC ingress.")] = False,
    no_gateway: Annotated[bool, typer.Option("--no-gateway", help="Without the GraphQL gateway.")] = False,
    no_edge: Annotated[bool, typer.Option("--no-edge", help="Without the edge agent.")] = False,
) -> None:
    """Start everything and keep it running; Ctrl-C stops it.

    A service whose URL is set (FW_KAFKA_BOOTSTRAP, FW_POSTGRES_URL, FW_CLICKHOUSE_URL) is used instead of ours.
    """
    left_out = {
        "kafka": no_kafka,
        "postgres": no_postgres,
        "clickhouse": no_clickhouse,
        "commands": no_commands,
        "reactors": no_commands,
        "policy": no_commands,
        "projections": no_projections,
        "archive": no_archive,
        "ingress": no_ingress,
        "gateway": no_gateway,
        "edge": no_edge,
    }
    directory = Directory(data_dir.resolve())
    try:
        code = _up(directory, Ports(port_base), frozenset(name for name, out in left_out.items() if out), as_json)
    except OSError as error:
        raise checks.explained(error, directory.root) from error
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a download under way sits in a thread, which a normal exit would wait for


def _up(
    directory: Directory, ports: Ports, without: frozenset[str], as_json: bool, rewired: Callable[[Plan], Plan] = lambda p: p
) -> int:
    """`rewired` changes the plan before anything is started: `fw chaos` puts proxies between the parts."""
    directory.logs.mkdir(parents=True, exist_ok=True)
    lock = acquire(directory)
    console = Console(stderr=as_json)
    notes: dict[str, Callable[[str], None]] = {}
    secrets = read_secrets(directory)

    def noting(name: str) -> Callable[[str], None]:
        return lambda note: notes[name](note)  # noqa: PLW0108  looked up when it is used: the display comes later

    planned = rewired(plan(directory=directory, ports=ports, secrets=secrets, without=without, env=environment(), say=noting))
    # inherited by everything that is started from here, however indirectly
    os.environ[MARK] = str(directory.root)
    end_leftovers(directory.root, lambda sentence: console.print(sentence, markup=False, highlight=False))
    directory.stack.unlink(missing_ok=True)
    checks.before_start(directory.root, planned.wanted_ports())
    secret_key = _secret_key(planned.env["FW_SECRET_KEY"])
    authority(directory, planned.env)
    if "edge" in {process.name for process in planned.processes}:
        edge_credential(directory, secret_key, planned.env["FW_EDGE_NODE_ID"])

    parts = {name: PartStatus(name) for name in (*(s.name for s in planned.servers), *(j.name for j in planned.jobs))}
    parts |= {process.name: PartStatus(process.name, process.metrics_url) for process in planned.processes}
    display: Display = (
        Screen(console, parts, f"FrameWorks in {directory.root}") if console.is_terminal and not as_json else Lines(console)
    )
    for part in parts.values():
        notes[part.name] = _noting(part, display)
    try:
        return asyncio.run(_run(planned, parts, display, console, as_json))
    finally:
        display.close()
        lock.close()


def _secret_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) < 32:
        raise CannotStart("FW_SECRET_KEY must be at least 64 hexadecimal digits; leave it unset and one is made and kept.")
    return key


def _noting(part: PartStatus, display: Display) -> Callable[[str], None]:
    def note(text: str) -> None:
        part.note = text
        display.changed(part)

    return note


async def _run(planned: Plan, parts: dict[str, PartStatus], display: Display, console: Console, as_json: bool) -> int:
    """Starts, publishes, watches, and whatever happens: stops."""
    began = time.monotonic()
    is_ready = False

    def publish() -> None:
        if is_ready:
            write_private(planned.directory.stack, json.dumps(stack(planned, parts), indent=1) + "\n")

    supervisor = Supervisor(planned, parts, display, publish)
    told_to_stop = _on_stop_signals(supervisor)
    stopping = asyncio.create_task(told_to_stop.wait())
    background: list[asyncio.Task[None]] = []
    try:
        starting = asyncio.create_task(supervisor.start())
        background.append(starting)
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            return 0
        await starting
        is_ready = True
        publish()
        display.close()
        _announce(planned, parts, console, as_json, time.monotonic() - began)
        watching = asyncio.create_task(supervisor.watch())
        background += [watching, asyncio.create_task(upkeep(planned, display.say))]
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching
        return 0
    finally:
        is_ready = False
        planned.directory.stack.unlink(missing_ok=True)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        display.say("stopping")
        await supervisor.stop()
        display.say("stopped")


def _on_stop_signals(supervisor: Supervisor) -> asyncio.Event:
    """Set by the first signal; one that comes later ends everything at once.

    A terminal, `make` and `timeout` may each pass on the same wish: signals within a second are one.
    """
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    told_at = loop.time()

    def on_signal() -> None:
        nonlocal told_at
        if told.is_set() and loop.time() - told_at > SAME_WISH_SECONDS:
            supervisor.hurry()
        elif not told.is_set():
            told_at = loop.time()
            told.set()

    for number in STOPS:
        loop.add_signal_handler(number, on_signal)
    return told


def stack(planned: Plan, parts: Mapping[str, PartStatus]) -> dict[str, object]:
    """All that others may know of a running stack; `stack.json`, which only its owner may read."""
    names = {*(s.name for s in planned.servers), *(p.name for p in planned.processes)}
    return {
        **planned.addresses.published(),
        "operator_token": planned.env["FW_OPERATOR_TOKEN"],
        "processes": {p.name: {"pid": p.pid, "metrics": p.metrics_url} for p in parts.values() if p.name in names},
        "secret_key": planned.env["FW_SECRET_KEY"],
        "data_dir": str(planned.directory.root),
        "archive": planned.env["FW_ARCHIVE_URL"],
        "supervisor": os.getpid(),
        "parts": {
            p.name: {"phase": p.phase, "started_at": p.started_at, "restarts": p.restarts, "note": p.note}
            for p in parts.values()
            if p.name in names
        },
    }


PRINTED = (
    "graphql",
    "graphql_ws",
    "edge",
    "ingress",
    "kafka",
    "postgres",
    "clickhouse",
    "schema_registry",
    "operator_token",
    "processes",
)


def printed(known: Mapping[str, object]) -> str:
    """The one line of `fw up --json` and `fw status --json`."""
    return json.dumps({key: known[key] for key in PRINTED})


def _announce(planned: Plan, parts: Mapping[str, PartStatus], console: Console, as_json: bool, seconds: float) -> None:
    known = stack(planned, parts)
    if as_json:
        print(printed(known), flush=True)
        return
    console.print(f"Everything is ready after {seconds:.1f} s, in {planned.directory.root}", highlight=False, markup=False)
    for label, value in (
        ("GraphQL, and its explorer in a browser", known["graphql"]),
        ("Edge agent, for MistServer's triggers", known["edge"]),
        ("gRPC ingress", known["ingress"]),
        ("Kafka", known["kafka"]),
        ("PostgreSQL", known["postgres"]),
        ("ClickHouse", known["clickhouse"]),
        ("Operator token", known["operator_token"]),
    ):
        console.print(f"  {label:<40}{value}", highlight=False, markup=False, soft_wrap=True)
    console.print("Ctrl-C stops all of it. `make demo` in another terminal shows it at work.", highlight=False, markup=False)
