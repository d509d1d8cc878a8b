"""`fw edge`: the agent beside a media server, run alone."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from infra.cli import edge_journal, edge_mist
from infra.cli.edge_enroll import enroll
from infra.cli.edge_options import Config, CredentialFile, MistApi, MistPasswordFile, MistUser, StateDir, TriggerUrl, as_variables

app = typer.Typer(name="edge", help="The agent that runs beside a MistServer.", no_args_is_help=True)
app.add_typer(edge_journal.app)


@app.callback()
def edge() -> None:
    """The agent that runs beside a MistServer."""


@app.command()
def run(
    node_id: Annotated[str | None, typer.Option(help="Name of the node; the credential's. FW_EDGE_NODE_ID")] = None,
    listen: Annotated[str | None, typer.Option(help="Where triggers are POSTed: 127.0.0.1:18007. FW_EDGE_LISTEN")] = None,
    ingress: Annotated[str | None, typer.Option(help="The platform's ingress: 127.0.0.1:18006. FW_EDGE_INGRESS")] = None,
    state_dir: StateDir = None,
    credential_file: CredentialFile = None,
    mist_api: MistApi = None,
    mist_user: MistUser = None,
    mist_password_file: MistPasswordFile = None,
    trigger_url: TriggerUrl = None,
    config: Config = None,
) -> None:
    """Run an edge agent until Ctrl-C or SIGTERM. With --mist-api it sets the media server up by itself, and looks at it.

    Every option is also a variable (its name is at the end of its help) and a line of the file of --config: a flag goes before a
    variable, a variable before the file.

    Examples:

      fw edge enroll --token fwe_… --platform https://platform.example.org --state-dir /var/lib/fw-edge

      fw edge run --state-dir /var/lib/fw-edge

      fw node credential --node-id edge-7 --operator -o edge-7.credential

      fw edge run --node-id edge-7 --ingress ingress.example.org:18006 --state-dir /var/lib/fw --credential-file edge-7.credential

      fw edge run --mist-api http://127.0.0.1:4242 --mist-user fw --mist-password-file /etc/fw/mist --state-dir /var/lib/fw
    """
    from edge_agent.__main__ import main

    os.environ |= as_variables(
        node_id=node_id,
        listen=listen,
        ingress=ingress,
        state_dir=state_dir,
        credential_file=credential_file,
        mist_api=mist_api,
        mist_user=mist_user,
        mist_password_file=mist_password_file,
        trigger_url=trigger_url,
        config=config,
    )
    raise typer.Exit(main())


app.command(name="plan")(edge_mist.plan)
app.command(name="doctor")(edge_mist.doctor)
app.command()(enroll)

if __name__ == "__main__":
    app()
