"""The real journal, uplink, ingress client and ingress: what a trigger was promised is on the log, whatever happens."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.sim.commands import quiet
from tests.sim.stores.disk import Disk
from tests.sim.stores.edge import EdgeRun, Step
from tests.sim.stores.edge_machine import explore

STORY: tuple[Step, ...] = (
    ("say", 0, 3),
    ("kafka", 30, 30),
    ("time", 1),
    ("say", 1, 2),
    ("power_loss", 30),
    ("say", 0, 1),
    ("full", 1),
    ("say", 1, 2),
    ("full", 0),
    ("mute",),
    ("time", 2),
    ("kill",),
    ("ingress_dies",),
)


def test_what_was_promised_is_on_the_log_in_order_and_shown_once() -> None:
    explore()


def test_the_same_seed_is_the_same_run() -> None:
    digests = []
    for _ in range(2):
        with quiet():
            run = EdgeRun(5)
            for step in STORY:
                run.do(*step)
            run.settle()
            digests.append(run.digest())
            run.end()
    assert digests[0] == digests[1]
    assert "True" in digests[0]


def test_the_disk_forgets_what_was_not_forced(tmp_path: Path) -> None:
    """Or no loss of power would prove anything."""
    disk = Disk()
    (tmp_path / "a").mkdir()
    connection = disk.connect(tmp_path / "a" / "journal.db")
    connection.execute("CREATE TABLE t (n)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("INSERT INTO t VALUES (2)")
    disk.after_power_loss(tmp_path / "a", tmp_path / "dark", 0)
    disk.after_kill(tmp_path / "a", tmp_path / "killed")
    connection.close()
    for home, expected in (("dark", [(1,)]), ("killed", [(1,), (2,)])):
        with sqlite3.connect(tmp_path / home / "journal.db") as again:
            assert again.execute("SELECT n FROM t").fetchall() == expected
