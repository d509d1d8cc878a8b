"""A test of the tests: the edge's journal with one mistake. The machine must find each."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from tests.sim.command_model import Wrong
from tests.sim.stores.edge import SteppedJournal
from tests.sim.stores.edge_machine import explore

BOUND = 40
"""Examples of 20 steps within which a mistake has to be found."""


class Unforced(SteppedJournal):
    """Answers before the fsync: SQLite is told not to wait for the disk."""

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute("PRAGMA synchronous=OFF")
        return connection


class AnswersFirst(SteppedJournal):
    """Answers before the transaction."""

    def _turn(self) -> None:
        for write in self._waiting:
            if write.done:
                write.done(True)
        group, self._waiting = [replace(write, done=None) for write in self._waiting], []
        if group:
            self._loop.call_later(0.02, self._commit, group)


@pytest.mark.parametrize("journal", [Unforced, AnswersFirst])
def test_the_machine_finds_the_mistake(journal: type[SteppedJournal]) -> None:
    with pytest.raises(Wrong, match="answered as durable"):
        explore(journal, BOUND)
