"""`fw doctor`: what is wrong here, in plain words, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping

import typer

from infra.cli.options import DEFAULT_DATA_DIR, DataDir, PortBase
from infra.embedded.errors import FAILED
from infra.supervisor import checks
from infra.supervisor.layout import Directory, Ports
from infra.supervisor.state import is_running, running_stack


def doctor(data_dir: DataDir = DEFAULT_DATA_DIR, port_base: PortBase = 0) -> None:
    """Say in plain words what is wrong, and what to do. Exit code 1: something is."""
    directory = Directory(data_dir.resolve())
    free_bytes = shutil.disk_usage(checks.nearest(directory.root)).free
    findings: list[tuple[str, str | None]] = [
        ("Python", checks.python_version()),
        ("disk", checks.free_disk(directory.root, free_bytes)),
        ("data directory", checks.data_directory(directory.root)),
        ("downloads", checks.downloads()),
    ]
    known = running_stack(directory)
    if known is not None:
        from infra.cli.standing import standing
        from infra.supervisor.archive_health import archive_health

        findings += _health(json.loads(json.dumps(known)))
        findings += archive_health(json.loads(json.dumps(known["processes"])))
        findings += [("projection", sentence) for sentence in standing(directory.root)[0]]
    elif is_running(directory):
        findings.append(("stack", "It is starting or stopping just now: ask again in a few seconds."))
    else:
        findings += [("memory", checks.memory()), ("ports", checks.free_ports(_wanted_ports(directory, Ports(port_base))))]
    for what, problem in findings:
        typer.echo(f"{'✗' if problem else '✓'} {what}{': ' + problem if problem else ''}")
    if any(problem for _, problem in findings):
        raise typer.Exit(FAILED)
    typer.echo("The stack runs and answers." if known else "Nothing is wrong. Nothing runs here: `fw up` starts it.")


def _health(known: Mapping[str, Mapping[str, Mapping[str, object]]]) -> list[tuple[str, str | None]]:
    from infra.supervisor.parts import answers

    findings: list[tuple[str, str | None]] = []
    for name, part in known["parts"].items():
        metrics = known["processes"][name]["metrics"]
        if part["phase"] != "ready":
            findings.append((name, f"It is {part['phase']}: {part['note']}. `fw logs {name}` says why."))
        elif isinstance(metrics, str) and not answers(metrics):
            findings.append(
                (
                    name,
                    f"It does not answer at {metrics}. `fw logs {name}` may say why; if not, end its pid: it is restarted.",
                )
            )
        else:
            findings.append((name, None))
    return findings


def _wanted_ports(directory: Directory, ports: Ports) -> Mapping[int, str]:
    from infra.supervisor.parts import environment, plan
    from infra.supervisor.state import Secrets

    unused = Secrets("", "00" * 32, "", "")
    return plan(
        directory=directory, ports=ports, secrets=unused, without=frozenset(), env=environment(), say=lambda _: lambda _: None
    ).wanted_ports()
