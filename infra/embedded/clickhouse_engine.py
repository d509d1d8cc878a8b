"""The embedded ClickHouse engine (chDB) behind something like a server's statement interface.

Invariants
* One process owns the data directory: chDB locks it, a second process gets code 76.
* Settings, USE and temporary tables live in a connection. A request gets a connection of its own (0.3 ms), a request
  with a session_id that session's kept one: requests cannot leak into each other.
* Queries on one connection are serialised by the engine, on two they run in parallel; the GIL is released.
* INSERT data goes through a file, see `_load`. An insert is acknowledged after its parts are written (page cache: it
  survives a kill -9 of this process; against power loss a table sets fsync_after_insert).
"""

from __future__ import annotations

import re
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import chdb  # in the main thread, first: importing it changes the working directory for a moment

from infra.embedded.clickhouse_statements import HEAD_BYTES, Fail, identifier, literal, split_insert

# URL parameters that belong to the transport and are no settings of the engine
TRANSPORT = frozenset(
    (
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "quota_key",
        "wait_end_of_query",
        "buffer_size",
        "compress",
        "decompress",
        "role",
        "client_protocol_version",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "enable_http_compression",
        "http_zlib_compression_level",
        "cancel_http_readonly_queries_on_client_close",
    )
)
# chDB starts with the habits of clickhouse-local; these make it behave like a server
SERVER_SETTINGS = {"implicit_select": "0", "max_execution_time": "120"}
MAX_SESSIONS = 1000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CODE = re.compile(r"Code: (\d+)\.")


class Result(Protocol):
    def bytes(self) -> bytes: ...
    def size(self) -> int: ...
    def elapsed(self) -> float: ...
    def rows_read(self) -> int: ...
    def rows_written(self) -> int: ...
    def bytes_written(self) -> int: ...
    def storage_rows_read(self) -> int: ...
    def storage_bytes_read(self) -> int: ...


class QueryClass(Protocol):
    @property
    def value(self) -> int: ...


class Connection(Protocol):
    def query(self, sql: str | bytes, format: str, *, params: Mapping[str, str] = ...) -> Result: ...
    def classify_query(self, sql: str) -> Mapping[str, QueryClass]: ...
    def close(self) -> None: ...


class Binding(Protocol):
    def connect(self, path: str) -> Connection: ...
    def set_signal_handlers_enabled(self, enabled: int) -> None: ...


_binding = cast(Binding, chdb._chdb)  # the thin binding: str or bytes in, bytes out
MUTATES = 1  # QueryClass of everything that changes data or schema


@dataclass(slots=True)
class Session:
    """A kept connection, and which settings of the URL it carries at present."""

    connection: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)
    applied: dict[str, str] = field(default_factory=dict)
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    summary: dict[str, int]


class Engine:
    """The opened data directory. Its methods block: call them on worker threads."""

    def __init__(self, data_dir: Path, memory_bytes: int) -> None:
        _binding.set_signal_handlers_enabled(0)  # before the first connection: the web server owns the signals
        data_dir.mkdir(parents=True, exist_ok=True)
        self._path = str(data_dir.resolve())
        if set(self._path) & set("*?{}"):
            raise ValueError("the name of the data directory looks like a glob, which FROM INFILE would expand")
        self._inbox = Path(self._path + ".inbox")  # bodies on their way in; what a kill left there is nobody's data
        shutil.rmtree(self._inbox, ignore_errors=True)
        self._inbox.mkdir()
        # The first connection starts the engine and holds it open; its options are server settings. The defaults are
        # made for a machine of its own: caches of 5 GB each, 90 % of the memory.
        self._keeper = _binding.connect(
            f"{self._path}?max_server_memory_usage={memory_bytes}&mark_cache_size=67108864&primary_index_cache_size=33554432"
            "&uncompressed_cache_size=0&max_thread_pool_size=200&background_pool_size=2&background_schedule_pool_size=8"
        )
        version, timezone = self._keeper.query("SELECT version(), timezone()", "TabSeparated").bytes().decode().split()
        self.version, self.timezone = version, timezone
        self._sessions: dict[str, Session] = {}
        self._sessions_lock = threading.Lock()

    def close(self) -> None:
        for session in self._sessions.values():
            session.connection.close()
        self._keeper.close()  # the last close stops merges and releases the lock of the directory

    def run(self, parameters: Mapping[str, str], sql: bytes, tables: list[tuple[str, bytes]], read_only: bool) -> Answer:
        """One statement. `tables` are the external tables of the request. Raises Fail, worded by the engine."""
        settings, bound = _settings_and_bindings(parameters)
        session = self._session(parameters) if parameters.get("session_id") else None
        connection = session.connection if session else _binding.connect(self._path)
        try:
            if session:
                # Only the difference is sent: a client repeats its settings in every request, and one that is no
                # longer in the URL goes back to its default.
                change: dict[str, str | None] = {k: v for k, v in settings.items() if session.applied.get(k) != v}
                change |= {k: SERVER_SETTINGS.get(k) for k in session.applied if k not in settings}
                session.applied = {}  # in case the next line fails half way
                _set(connection, change)
                session.applied = settings
            else:
                _set(connection, {**SERVER_SETTINGS, **settings})
            if database := parameters.get("database"):
                connection.query(f"USE {identifier(database)}", "Null")
            if read_only and connection.classify_query(sql.decode(errors="replace"))["query_class"].value == MUTATES:
                raise Fail(
                    164, "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly", "READONLY"
                )
            for name, data in tables:  # external data: temporary tables, gone with the connection
                self._external_table(connection, parameters, name, data)
            return self._execute(connection, sql, parameters.get("default_format") or "TabSeparated", bound)
        except RuntimeError as e:  # what the binding raises for every error of the engine
            raise _failure(str(e)) from None
        except UnicodeDecodeError as e:  # and for an error whose sentence quotes bytes of the data
            raise _failure(e.object.decode(errors="replace")) from None
        finally:
            if session:
                session.lock.release()
            else:
                connection.close()

    def _execute(self, connection: Connection, sql: bytes, output_format: str, bound: Mapping[str, str]) -> Answer:
        insert = split_insert(sql[:HEAD_BYTES])
        if insert:
            head, settings, data_format, offset = insert
            result, body = self._load(connection, head, settings, data_format, memoryview(sql)[offset:]), b""
        else:
            try:
                text: str | bytes = sql.decode()
            except UnicodeDecodeError:
                text = sql  # the binding takes bytes as well
            result = connection.query(text, output_format, params=bound)
            body = result.bytes() if result.size() else b""
        return Answer(
            body,
            {
                "read_rows": result.storage_rows_read(),
                "read_bytes": result.storage_bytes_read(),
                "written_rows": result.rows_written(),
                "written_bytes": result.bytes_written(),
                "result_rows": 0 if insert else result.rows_read(),
                "result_bytes": len(body),
                "elapsed_ns": int(result.elapsed() * 1e9),
            },
        )

    def _session(self, parameters: Mapping[str, str]) -> Session:
        """The session of this id, locked for the caller."""
        key, now = parameters["session_id"], time.monotonic()
        with self._sessions_lock:
            for old in [k for k, s in self._sessions.items() if s.expires_at < now and not s.lock.locked()]:
                self._sessions.pop(old).connection.close()
            session = self._sessions.get(key)
            if session is None:
                if parameters.get("session_check") == "1":
                    raise Fail(372, "Session not found", "SESSION_NOT_FOUND")
                if len(self._sessions) >= MAX_SESSIONS:
                    raise Fail(202, "Too many sessions", "TOO_MANY_SIMULTANEOUS_QUERIES")
                connection = _binding.connect(self._path)
                _set(connection, SERVER_SETTINGS)
                session = self._sessions[key] = Session(connection)
            if not session.lock.acquire(blocking=False):
                raise Fail(373, "Session is locked by a concurrent client", "SESSION_IS_LOCKED")
            session.expires_at = now + min(float(parameters.get("session_timeout", "60")), 3600.0)
            return session

    def _external_table(self, connection: Connection, parameters: Mapping[str, str], name: str, data: bytes) -> None:
        structure = parameters.get(f"{name}_structure")
        if not structure:
            types = parameters.get(f"{name}_types")
            if not types:
                raise Fail(36, f"Neither structure nor types of the external table {name} are given", "BAD_ARGUMENTS")
            structure = ", ".join(f"_{n} {t}" for n, t in enumerate(types.split(","), 1))
        connection.query(f"CREATE TEMPORARY TABLE {identifier(name)} ({structure})", "Null")
        self._load(connection, f"INSERT INTO {identifier(name)}", "", parameters.get(f"{name}_format", "TabSeparated"), data)

    def _load(self, connection: Connection, head: str, settings: str, data_format: str, data: bytes | memoryview) -> Result:
        """Inserts through a file, the only one of chDB's three ways in that is right:

        send_insert()                  reports success although a materialized view failed
        query("INSERT … FORMAT x …")   cuts binary data at a newline or semicolon (CSV: in silence)
        FROM INFILE                    every format, every error
        """
        file = self._inbox / uuid.uuid4().hex
        try:
            file.write_bytes(data)
            return connection.query(
                f"{head} FROM INFILE {literal(str(file))} COMPRESSION 'none' {settings} FORMAT {data_format}", "Null"
            )
        finally:
            file.unlink(missing_ok=True)


def _settings_and_bindings(parameters: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    settings, bound = {}, {}
    for key, value in parameters.items():
        if key.startswith("param_"):
            bound[key.removeprefix("param_")] = value
        elif key not in TRANSPORT and not key.endswith(("_structure", "_types", "_format")):
            if not _NAME.match(key):
                raise Fail(115, f"Setting {key} is neither a builtin setting nor custom", "UNKNOWN_SETTING")
            settings[key] = value
    return settings, bound


def _set(connection: Connection, settings: Mapping[str, str | None]) -> None:
    if settings:
        # quoted always: the engine converts, and it refuses a bare number for a setting of type String
        words = (f"{key} = {'DEFAULT' if value is None else literal(value)}" for key, value in settings.items())
        connection.query("SET " + ", ".join(words), "Null")


def _failure(text: str) -> Fail:
    found = _CODE.search(text)
    if not found:
        return Fail(1001, text, "STD_EXCEPTION")
    fail = Fail(int(found.group(1)), "", "")
    fail.text = text[found.start() :]
    return fail
