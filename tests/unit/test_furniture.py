"""The files around the code say what is true: links lead somewhere, the licence is whole, hooks run what is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")] if ".venv" not in p.parts)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    dead = [target for target in LINK.findall(text) if not (page.parent / target).exists()]
    assert not dead


def test_the_worked_example_lists_files_that_are_there() -> None:
    text = (ROOT / "docs" / "adding-an-event.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(\S+/\S+|CHANGELOG\.md) +\| +\d+ \+", text, re.MULTILINE)
    assert len(listed) == 15
    assert [path for path in listed if not (ROOT / path).is_file()] == []


def test_every_folder_says_what_it_owns() -> None:
    for folder in ("schemas", "streams", "commands", "projections", "gateway", "edge_agent", "infra", "tests", "bench"):
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        assert re.search(r"\bowns?\b", text, re.IGNORECASE), folder
        assert len(text.splitlines()) <= 60, f"{folder}: half a page"


def test_the_licence_is_the_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_hooks_are_local() -> None:
    """They run what the lock file pins; nothing is downloaded behind its back."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/") for repo in config["repos"] for hook in repo["hooks"])


def test_every_metric_of_ours_is_called_so() -> None:
    """Prometheus keeps the metrics of all programs in one space of names."""
    made = re.compile(r'\b(?:Counter|Gauge|Histogram)\(\s*"([a-z0-9_]+)"')
    folders = ("streams", "commands", "projections", "gateway", "edge_agent", "infra")
    names = [
        name for folder in folders for file in (ROOT / folder).rglob("*.py") for name in made.findall(file.read_text("utf-8"))
    ]
    assert len(names) > 30
    assert [name for name in names if not name.startswith("fw_")] == []
