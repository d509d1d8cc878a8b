"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[Path, typer.Option("--data-dir", envvar="FW_DATA_DIR", help="Where everything is kept.", show_default=True)]
PortBase = Annotated[int, typer.Option("--port-base", min=0, max=36_000, help="Added to every port.")]
DEFAULT_DATA_DIR = Path("data")
