"""Small promises about the processes of the embedded stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.embedded import without_root
from infra.supervisor import upkeep


def test_a_program_without_root_reads_what_only_its_owner_may_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "file").write_text("read")
    program = f"import os; print(os.geteuid(), os.access({str(tmp_path)!r}, os.X_OK), open({str(tmp_path / 'file')!r}).read())"
    # the interpreter itself may lie below /root
    done = subprocess.run(without_root.command(sys.executable, "-c", program), capture_output=True, text=True, check=True)
    user, reaches, content = done.stdout.split()
    assert int(user) != 0
    assert (reaches, content) == ("True", "read")


def test_a_long_log_is_shortened_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LOG_BYTES", 10)
    log = tmp_path / "kafka.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a line that is long\n")
        upkeep.shorten_logs(tmp_path)
        writer.write(b"next\n")
    assert log.read_bytes() == b"next\n"
    assert (tmp_path / "kafka.log.1").read_bytes() == b"a line that is long\n"


def test_the_command_line_imports_nothing_heavy_for_its_help() -> None:
    program = """
import sys
from infra.cli.app import command_line
command_line(None)
heavy = {"psutil", "rich.live", "aiokafka", "asyncpg", "chdb", "grpc", "faust", "asyncio"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
