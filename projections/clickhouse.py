"""The ClickHouse client of workers and readers: one way to connect, one way to ask for a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from projections.pages import Key, Page
from streams.errors import Transient

__all__ = ["AsyncClient", "connect", "page", "rows"]

Row = TypeVar("Row")
UNKNOWN_TABLE: Final = 60


async def connect(url: str) -> AsyncClient:
    """A client of http://user:password@host:port/database; it may be used by many tasks at once. Close it."""
    return await clickhouse_connect.get_async_client(
        dsn=url,
        autogenerate_session_id=False,  # a session serves one query at a time
        tz_mode="aware",
        compress=False,  # loopback or a fast network: compressing costs more than it saves
        query_retries=2,
        send_receive_timeout=120,
        settings={"async_insert": 0},
    )


async def rows(ch: AsyncClient, sql: str, parameters: Mapping[str, object]) -> Sequence[Sequence[Any]]:
    """Rows of a query; `{name:Type}` in it are bound by the server. Raises Transient while the projection has no tables yet."""
    try:
        result = await ch.query(sql, parameters=dict(parameters))
    except DatabaseError as error:
        if error.code == UNKNOWN_TABLE:
            raise Transient("this part of the platform is still starting: its tables are not there yet") from error
        raise
    return result.result_rows


async def page(
    ch: AsyncClient,
    listed: str,
    parameters: Mapping[str, object],
    first: int,
    after: Key | None,
    read: Callable[[Sequence[Any]], Row],
) -> Page[Row]:
    """Rows of the query `listed`, the newest first: `first` of them from behind the key `after`.

    `listed` selects, at the beginning, `key_ms` (Int64, what it is sorted by) and `key_id` (UUID, which makes that unique).
    """
    behind = "WHERE (key_ms, key_id) < ({after_ms:Int64}, {after_id:UUID})" if after else ""
    bound = {**parameters, "limit": first + 1}
    if after:
        bound |= dict(zip(("after_ms", "after_id"), _key(after), strict=True))
    found = await rows(
        ch,
        f"SELECT * FROM (SELECT *, count() OVER () AS total_count FROM ({listed})) {behind}"  # noqa: S608 - our own text; values are bound
        " ORDER BY key_ms DESC, key_id DESC LIMIT {limit:UInt32}",
        bound,
    )
    if found:
        total = int(found[0][-1])
    else:  # behind the last row, or a list without rows
        total = int((await rows(ch, f"SELECT count() FROM ({listed})", parameters))[0][0]) if after else 0  # noqa: S608
    shown = found[:first]
    return Page([read(row[2:-1]) for row in shown], [(row[0], str(row[1])) for row in shown], len(found) > first, total)


def _key(after: Key) -> tuple[int, UUID]:
    """A key that `page` gave. ValueError: it did not."""
    match after:
        case (int(ms), str(text)):
            return ms, UUID(text)
    raise ValueError("not a key of this list")
