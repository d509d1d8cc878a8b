"""What `fw up` and `fw doctor` say about a machine."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from infra.embedded.errors import DISK_FULL
from infra.embedded.ports import free_ports
from infra.supervisor import checks
from infra.supervisor.layout import Directory
from infra.supervisor.state import is_running

ROOT = Path("somewhere")


def test_a_disk_with_room_is_no_problem() -> None:
    assert checks.free_disk(ROOT, checks.NEEDED_DISK_BYTES) is None


def test_a_full_disk_is_said_with_numbers() -> None:
    said = checks.free_disk(ROOT, 3 * checks.MB)
    assert said is not None
    assert "3 MB are free, 512 MB are needed" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_errors_of_a_full_disk_become_that_sentence(number: int) -> None:
    explained = checks.explained(OSError(number, "whatever"), ROOT)
    assert explained.exit_code == DISK_FULL
    assert "is full" in str(explained)


def test_a_data_directory_that_is_a_file_is_said_and_nothing_runs_in_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert checks.data_directory(tmp_path / "not there yet") is None
    assert checks.data_directory(file) == f"{file} is not a directory: choose another with --data-dir."
    assert checks.data_directory(file / "below") == f"{file} is not a directory: choose another with --data-dir."
    assert not is_running(Directory(file))


def test_an_old_python_is_named() -> None:
    assert checks.python_version((3, 11)) is None
    assert "3.10 is too old" in (checks.python_version((3, 10)) or "")


def test_every_taken_port_is_listed() -> None:
    one, two = free_ports(2)
    assert checks.free_ports({one: "A", two: "B"}) is None
    with socket.create_server(("127.0.0.1", one)), socket.create_server(("127.0.0.1", two)):
        said = checks.free_ports({one: "A", two: "B"})
    assert said is not None
    assert f"Port {one}, wanted for A" in said
    assert f"1 more: {two}" in said
