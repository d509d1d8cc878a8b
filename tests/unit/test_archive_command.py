"""`fw archive` for a platform that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.up import fw


@pytest.mark.parametrize("command", [("status",), ("verify",), ("prune", "--orphans")])
def test_a_slip_of_the_pen_makes_no_archive_and_praises_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = fw("archive", *command, "--data-dir", str(tmp_path / "nowhere"), env={"FW_DATA_DIR": ""})
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"{tmp_path / 'nowhere'} is no directory: name that of the platform with --data-dir, or set FW_ARCHIVE_URL.\n"
    )
    assert not any(tmp_path.iterdir())
