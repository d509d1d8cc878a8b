"""Writes `streams/ingress/ingress_pb2*`: messages and service of `schemas/proto/ingress.proto`, with their types."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from infra.gen.lock import ROOT

PROTO = ROOT / "schemas" / "proto"
PACKAGE = Path("streams") / "ingress"


def proto_files() -> Mapping[Path, str]:
    """Every file that follows from the proto file, and its text."""
    with tempfile.TemporaryDirectory() as out:
        # The proto file is read under the path of the package, so that the generated import of the messages is absolute.
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PACKAGE}={PROTO}", f"{PACKAGE}/ingress.proto"]
        command += [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        plugins = str(Path(sys.executable).parent)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": plugins})
        if done.returncode:
            raise RuntimeError(f"protoc: {done.stderr.strip()}")
        made = sorted((Path(out) / PACKAGE).iterdir())
        return {ROOT / PACKAGE / path.name: path.read_text(encoding="utf-8") for path in made}
