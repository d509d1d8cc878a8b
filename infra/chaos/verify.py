"""Second opinions: `fw verify` of every projection against its clean fold, and `fw archive verify` of every archived object."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

from infra.chaos.findings import Finding, Wrong
from infra.chaos.platform import Platform
from projections import PROJECTIONS

DIFFERENT: Final = 1
SAID_CHARACTERS: Final = 800


async def verify(platform: Platform, say: Callable[[str], None]) -> list[Finding]:
    """One after the other. What cannot be verified is no equal."""
    archive = [("archive", "flush"), ("archive", "verify")] if "archive" in platform.parts() else []
    found = []
    for command in [*(("verify", name) for name in PROJECTIONS), *archive]:
        say(f"fw {' '.join(command)}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.cli", *command, "--data-dir", str(platform.data_dir)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode:
            is_different = process.returncode == DIFFERENT
            what = "it differs" if is_different else f"it could not be done (exit code {process.returncode})"
            found.append(Finding(Wrong.DIFFERS, f"{what}: {said.decode()[-SAID_CHARACTERS:]}", f"fw {' '.join(command)}"))
    return found
