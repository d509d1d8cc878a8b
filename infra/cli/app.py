"""The root of the command line: each command lives in a module of its own, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import typer

from infra.embedded.errors import CannotStart

OURS = frozenset({"streams", "commands", "projections", "gateway", "edge_agent", "infra", "schemas"})
# command: (module, what it holds there, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("infra.cli.up", "up", "Start everything and keep it running; Ctrl-C stops it."),
    "status": ("infra.cli.status", "status", "What runs, since when, and where it is reached."),
    "logs": ("infra.cli.logs", "logs", "Show the log of a part."),
    "doctor": ("infra.cli.doctor", "doctor", "Say in plain words what is wrong, and what to do."),
    "prepare": ("infra.cli.prepare", "prepare", "Download what the first start would, and make starts faster."),
    "chaos": ("infra.cli.chaos", "chaos", "Kill, freeze and cut the platform under load, then compare everything."),
    "demo": ("infra.cli.demo", "demo", "A recorded live stream, from a trigger to a subscriber's screen."),
    "replay-recording": ("infra.cli.recording", "replay_recording", "POST recorded MistServer triggers to an edge agent."),
    "rebuild": ("infra.cli.rebuild", "rebuild", "Make a projection anew beside the live one, compare, and let readers see it."),
    "verify": ("infra.cli.verify", "verify", "Compare a projection with a clean fold of the whole history."),
    "replay": ("infra.cli.replay", "replay", "Apply a part of history to a live projection again."),
    "edge": ("infra.cli.edge", "app", "Run an edge agent alone."),
    "node": ("infra.cli.node", "app", "Edge nodes: register, enrol, drain, revoke."),
    "balancer": ("infra.cli.balancer", "app", "Which node serves whom: status, and what if other weights held."),
    "dlq": ("infra.cli.dlq", "app", "Dead letters: list, show, retry, drop."),
    "archive": ("infra.cli.archive", "app", "History in object storage: status, flush, verify, prune."),
    "backup": ("infra.cli.backup", "backup", "Copy the platform's truth: log, archive and keys."),
    "restore": ("infra.cli.backup", "restore", "Make a platform from a backup, in an empty data directory."),
    "topics": ("infra.cli.topics", "app", "Kafka's topics: show the difference, apply it."),
}


def command_line(called: str | None) -> typer.Typer:
    """The command line with one command imported; the others are there by name and help only."""
    app = typer.Typer(
        name="fw", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback(help="FrameWorks: live video whose every change of state is an event.")(_nothing)
    for name, (module, attribute, help_line) in COMMANDS.items():
        if name != called:
            app.command(name, help=help_line)(_nothing)
            continue
        found = getattr(_imported(module, name), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, help=help_line)
        else:
            app.command(name)(found)
    return app


def _imported(module: str, command: str) -> ModuleType:
    """Raises CannotStart where only the edge is installed, and the command is one of the platform."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] in OURS:
            raise
        raise CannotStart(
            f"`fw {command}` needs the whole platform, and {missing.name} is not installed here: install frameworks[platform]. "
            "An edge needs `fw edge` alone."
        ) from missing


def _nothing() -> None:
    return


def main() -> None:
    try:
        command_line(next((word for word in sys.argv[1:] if word in COMMANDS), None))()
    except CannotStart as problem:
        typer.echo(f"fw: {problem}", err=True)
        raise SystemExit(problem.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
