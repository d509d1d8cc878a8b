"""One rebuild, verification or replay of a projection at a time.

Invariant: the lock belongs to a database session of its own, so it is gone with the process, however that ends. Positions move by
compare-and-set all the same: a lock that was lost unseen costs an error, never a row.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from projections.rebuild.errors import Busy

CLASS: Final = 7_170_103  # any number that nothing else in the database takes
_TAKE = "SELECT pg_try_advisory_lock($1, hashtext($2))"
_WAIT = "SELECT pg_advisory_lock($1, hashtext($2))"
_WHO = """
SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1::bigint::oid AND l.objid = (hashtext($2)::bigint & 4294967295)::oid
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@asynccontextmanager
async def alone(url: str, projection: str, doing: str, *, wait: bool = False) -> AsyncIterator[None]:
    """Holds the lock of a projection until the block ends; `wait` for it, or raise Busy."""
    name = f"{doing} by process {os.getpid()} on {socket.gethostname()}"
    connection = await asyncpg.connect(url, server_settings={"application_name": name[:63]})
    try:
        if wait:
            await connection.execute(_WAIT, CLASS, projection)
        elif not await connection.fetchval(_TAKE, CLASS, projection):
            who = await connection.fetchval(_WHO, CLASS, projection) or "another process"
            raise Busy(f"{projection} is being worked on ({who}): wait until that is done, or stop it and run this again.")
        yield
    finally:
        connection.terminate()
