"""`fw edge enroll`: a token becomes the node's key and certificate."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

Token = Annotated[str, typer.Option("--token", envvar="FW_EDGE_TOKEN", help="From issueEnrolmentToken, or @FILE that holds it.")]
Platform = Annotated[str, typer.Option("--platform", envvar="FW_EDGE_PLATFORM", help="The platform's URL.")]
StateDir = Annotated[
    Path, typer.Option("--state-dir", envvar="FW_EDGE_STATE_DIR", help="Where `fw edge run` keeps its journal and its identity.")
]
Force = Annotated[bool, typer.Option("--force", help="Enrol although this machine is enrolled: with another node's token, too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


def enroll(
    token: Token, platform: Platform, state_dir: StateDir = Path("data/edge"), force: Force = False, as_json: AsJson = False
) -> None:
    """Enrol this machine as a node of the platform, once. Then run it with `fw edge run`, which renews the certificate by itself.

    The token does not travel, and names the platform's authority: it is safe where the platform is reached without HTTPS. Asking
    again after a lost answer is harmless. Exit code: 0 enrolled, 1 refused, 3 no answer (try again).

    Examples:

    \b
      fw edge enroll --token fwe_… --platform https://platform.example.org --state-dir /var/lib/fw-edge
      fw edge enroll --token @/run/fw-edge.token --platform http://10.0.0.5:18000 --json
    """
    from edge_agent.enrolment import enrol
    from edge_agent.identity import load
    from streams.errors import Rejected, Transient
    from streams.pki.messages import parse_token

    try:
        text = Path(token[1:]).read_text(encoding="utf-8") if token.startswith("@") else token
        known = load(state_dir)
        if known is not None and not force:
            raise ValueError(
                f"this machine is enrolled already, as {known.node_id} in {state_dir}: `fw edge run` renews its certificate by "
                "itself. With --force it is enrolled anew, which ends the certificate that it has"
            )
        found = enrol(parse_token(text), platform.rstrip("/"), state_dir)
    except Transient as error:
        _end(f"{error}; try again", 3, as_json, "UNAVAILABLE")
    except Rejected as error:
        _end(error.message, 1, as_json, error.code)
    except (OSError, ValueError) as error:
        _end(str(error), 1, as_json, "CANNOT_ENROL")
    else:
        until = datetime.fromtimestamp(found.ends_ms() / 1000, UTC)
        if as_json:
            said = {"node_id": found.node_id, "tenant_id": str(found.tenant_id), "ingress": found.ingress}
            typer.echo(json.dumps(said | {"certificate_until": until.isoformat(), "state_dir": str(state_dir)}))
        else:
            typer.echo(f"enrolled as {found.node_id}; the certificate is good until {until:%Y-%m-%d %H:%M} UTC and renews itself")
            typer.echo(f"next: fw edge run --state-dir {state_dir}, which connects to {found.ingress}")
        if os.geteuid() == 0 and state_dir.stat().st_uid != 0:
            _give_to_owner(state_dir)


def _end(sentence: str, code: int, as_json: bool, name: str) -> None:
    typer.echo(json.dumps({"error": name, "message": sentence}) if as_json else f"fw: {sentence}", err=not as_json)
    raise typer.Exit(code)


def _give_to_owner(state_dir: Path) -> None:
    """Run by root for a service that runs as somebody else: the files belong to who owns the directory."""
    from edge_agent.identity import IDENTITY

    owner = state_dir.stat()
    os.chown(state_dir / IDENTITY, owner.st_uid, owner.st_gid)
