"""`fw demo`: recorded triggers of a real media server, replayed; the figures must be those of the recording."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import DEFAULT_DATA_DIR, DataDir, PortBase

if TYPE_CHECKING:
    from rich.console import Console

    from infra.demo.operations import Event
    from infra.demo.run import Outcome
    from infra.demo.stack import Stack

FAILED = 1


def demo(
    scenario: Annotated[str, typer.Option(help="1: viewers. 2: reconnects. 3: recordings. 4: refusals. Or all.")] = "1",
    speed: Annotated[float, typer.Option(min=0.1, max=1000, help="Times as fast as it was recorded.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON at the end, and nothing else.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port_base: PortBase = 0,
) -> None:
    """A recorded live stream, from a trigger to a subscriber's screen. Uses the running platform, or starts one.

    Exit code 1: a figure is not the recording's.
    """
    from httpx import HTTPError
    from rich.console import Console

    from infra.demo.api import Refused
    from infra.demo.recording import SCENARIOS

    numbers = list(SCENARIOS) if scenario == "all" else [int(n) for n in scenario.split(",") if n.isdecimal()]
    if not numbers or not set(numbers) <= set(SCENARIOS):
        raise typer.BadParameter(f"one of {', '.join(map(str, SCENARIOS))}, or all", param_hint="--scenario")
    console = Console(highlight=False, stderr=as_json, quiet=as_json)
    try:
        outcomes = asyncio.run(play(numbers, speed, data_dir, port_base, console))
    except (Refused, OSError, HTTPError) as problem:
        typer.echo(f"fw demo: {problem or type(problem).__name__}", err=True)
        raise typer.Exit(FAILED) from None
    if as_json:
        typer.echo(json.dumps({"equal": all(o.equal for o in outcomes), "scenarios": [as_dict(o) for o in outcomes]}))
    if not all(o.equal for o in outcomes):
        raise typer.Exit(FAILED)


async def play(numbers: Sequence[int], speed: float, data_dir: DataDir, port_base: int, console: Console) -> list[Outcome]:
    from infra.demo import run
    from infra.demo.lines import line
    from infra.demo.recording import SCENARIOS
    from infra.demo.stack import stack

    def show(seconds: float, event: Event) -> None:
        console.print(f"{seconds:7.2f} s  {line(event)}", markup=False, soft_wrap=True)

    outcomes = []
    async with stack(data_dir, port_base, lambda text: console.print(f"[dim]{text}[/]")) as running:
        token = await run.tenant(running)
        for number in numbers:
            console.print(f"\n[bold]Scenario {number}: {SCENARIOS[number][1]}[/]")
            outcome = await run.scenario(number, running, token, speed, show)
            outcomes.append(outcome)
            compare(outcome, console)
        if not console.quiet:
            explain(outcomes[-1], running, token, console)
        if running.started_here and console.is_terminal and not console.quiet:
            await interrupted(console)
    return outcomes


async def interrupted(console: Console) -> None:
    """Leaves the platform to who is looking at it, until they have seen enough."""
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, done.set)
    console.print("The platform runs until Ctrl-C.")
    await done.wait()


def compare(outcome: Outcome, console: Console) -> None:
    from rich.table import Table

    from infra.demo.lines import rows

    table = Table("", "by the recording", "by the API", "", box=None)
    for what, expected, found in rows(outcome.expected, outcome.found):
        table.add_row(what, expected, found, "[green]equal[/]" if expected == found else "[red]different[/]")
    console.print(table)
    if outcome.refusals:
        console.print(f"refused because: {', '.join(outcome.refusals)}")
    for kind in outcome.missed:
        console.print(f"[red]the subscriber was not told of every {kind}[/]")


def explain(last: Outcome, stack: Stack, token: str, console: Console) -> None:
    from infra.demo import operations

    for question, query in (
        ("Who watched, how long, how many bytes", operations.WHO_WATCHED),
        ("Who published, and who was refused", operations.WHO_PUBLISHED),
    ):
        console.print(f"\n[bold]{question}[/]")
        console.print(query.strip(), markup=False, style="cyan", soft_wrap=True)
    console.print(f'\nVariables  {{"id": "{last.stream_id}"}}', markup=False, soft_wrap=True)
    console.print(f"Token      {token}", markup=False, soft_wrap=True)
    console.print(f"Try them in the browser: {stack.graphql}", soft_wrap=True)


def as_dict(outcome: Outcome) -> dict[str, object]:
    return {
        "scenario": outcome.scenario,
        "streamId": outcome.stream_id,
        "equal": outcome.equal,
        "expected": asdict(outcome.expected),
        "found": asdict(outcome.found),
        "refusals": outcome.refusals,
        "missed": outcome.missed,
        "events": [e.typename for e in outcome.events],
    }
