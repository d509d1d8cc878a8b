"""Options that the commands of `fw edge` share. None: not given, so that the variable or the file says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

StateDir = Annotated[Path | None, typer.Option(help="Journal and policy: data/edge. FW_EDGE_STATE_DIR")]
CredentialFile = Annotated[
    Path | None, typer.Option(help="From `fw node credential`; else `credential` in the state directory. FW_EDGE_CREDENTIAL_FILE")
]
MistApi = Annotated[str | None, typer.Option(help="MistServer's API: http://127.0.0.1:4242. FW_EDGE_MIST_API")]
MistUser = Annotated[str | None, typer.Option(help="Its user; not needed from the machine itself. FW_EDGE_MIST_USER")]
MistPasswordFile = Annotated[Path | None, typer.Option(help="File with the password. FW_EDGE_MIST_PASSWORD_FILE")]
TriggerUrl = Annotated[str | None, typer.Option(help="Where MistServer reaches us: http://LISTEN. FW_EDGE_TRIGGER_URL")]
Config = Annotated[Path | None, typer.Option(help="TOML file with any of these. FW_EDGE_CONFIG")]


def as_variables(**options: str | Path | None) -> Mapping[str, str]:
    """Variables of the options that were given."""
    return {f"FW_EDGE_{name.upper()}": str(value) for name, value in options.items() if value is not None}
