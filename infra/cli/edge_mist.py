"""`fw edge plan` and `fw edge doctor`: what would be done to the media server, and what is missing for everything to work."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Annotated

import typer

from infra.cli.edge_options import Config, CredentialFile, MistApi, MistPasswordFile, MistUser, StateDir, TriggerUrl, as_variables
from infra.embedded.errors import FAILED

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def plan(
    state_dir: StateDir = None,
    mist_api: MistApi = None,
    mist_user: MistUser = None,
    mist_password_file: MistPasswordFile = None,
    trigger_url: TriggerUrl = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say what `fw edge run` would change at the media server, and change nothing. Exit code 1: it cannot be asked.

    Example:

      fw edge plan --mist-api http://127.0.0.1:4242
    """
    from edge_agent.mist.diagnosis import read_plan
    from edge_agent.mist.settings import alone
    from streams.errors import Rejected, Transient
    from streams.settings import SettingsError

    given = as_variables(
        state_dir=state_dir,
        mist_api=mist_api,
        mist_user=mist_user,
        mist_password_file=mist_password_file,
        trigger_url=trigger_url,
        config=config,
    )
    try:
        settings, journal = alone(os.environ | given)
        server, steps, problems = asyncio.run(read_plan(settings, journal))
    except (SettingsError, Transient) as error:
        raise _failed(str(error)) from None
    except Rejected as error:
        raise _failed(error.message) from None
    if as_json:
        shown = [{"step": s.name, "sentence": s.sentence, "commands": s.commands} for s in steps]
        kind = "fork" if server.is_fork else "stock"
        typer.echo(json.dumps({"version": server.version, "flavour": kind, "steps": shown, "problems": problems}, indent=2))
        return
    typer.echo(f"MistServer {server.version}, {'the fork' if server.is_fork else 'stock'}")
    for number, step in enumerate(steps, 1):
        typer.echo(f"{number:3}. {step.sentence}")
    for problem in problems:
        typer.echo(f"  ✗ {problem}")
    if not steps and not problems:
        typer.echo("Nothing is to be done: it is set up as it shall be.")


def doctor(
    state_dir: StateDir = None,
    credential_file: CredentialFile = None,
    mist_api: MistApi = None,
    mist_user: MistUser = None,
    mist_password_file: MistPasswordFile = None,
    trigger_url: TriggerUrl = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say in plain words what is missing for this node to work, and what to do. Exit code 1: something is."""
    from edge_agent.mist.diagnosis import diagnose

    given = as_variables(
        state_dir=state_dir,
        credential_file=credential_file,
        mist_api=mist_api,
        mist_user=mist_user,
        mist_password_file=mist_password_file,
        trigger_url=trigger_url,
        config=config,
    )
    findings = asyncio.run(diagnose(os.environ | given))
    if as_json:
        typer.echo(json.dumps([{"what": f.what, "problem": f.problem, "detail": f.detail} for f in findings], indent=2))
    else:
        for found in findings:
            typer.echo(f"{'✗' if found.problem else '✓'} {found.what}: {found.problem or found.detail}")
    if any(found.problem for found in findings):
        raise typer.Exit(FAILED)


def _failed(sentence: str) -> typer.Exit:
    typer.echo(sentence, err=True)
    return typer.Exit(FAILED)
