"""What the HTTP door must understand of a statement and its bodies. Pure; knows nothing of the engine."""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Callable
from email.parser import BytesParser

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd  # what clickhouse-connect itself depends on

_TOKEN = re.compile(
    rb"""\s+ | --[^\n]*(?:\n|\Z) | \#[!\ ][^\n]*(?:\n|\Z) | /\*.*?\*/
       | '(?:\\.|''|[^'\\])*' | `(?:\\.|``|[^`\\])*` | "(?:\\.|""|[^"\\])*"
       | (?P<word>[A-Za-z_][A-Za-z0-9_]*) | .""",
    re.X | re.S,
)
_FORMAT_NAME = re.compile(rb"\s+([A-Za-z0-9_]+)[ \t\f]*\r?\n?")
# the head of an INSERT is looked for in this much of a body, which may be data of any size
HEAD_BYTES = 1 << 20


class Fail(Exception):
    """An error as ClickHouse words it: clients parse the code and the name."""

    def __init__(self, code: int, message: str, name: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.text = f"Code: {code}. DB::Exception: {message}. ({name})"
        self.status = status or http_status(code)


def http_status(code: int) -> int:
    """As the server maps them (the ones that matter); everything else is 500."""
    if code in (6, 27, 33, 36, 38, 41, 43, 53, 62, 69, 70, 72, 115, 117, 131, 457, 472):  # bad input
        return 400
    if code in (5, 10, 16, 46, 47, 60, 81, 372):  # unknown something
        return 404
    return {48: 501, 76: 503, 159: 408, 164: 403, 202: 503, 516: 403}.get(code, 500)


def literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def split_insert(sql: bytes) -> tuple[str, str, str, int] | None:
    """An INSERT that carries its data: (`INSERT INTO t (a, b)`, `SETTINGS …` or "", format, offset of the data).

    None: a statement that the engine reads whole.
    """
    depth, first, settings = 0, True, None
    for token in _TOKEN.finditer(sql):
        word = token.group("word")
        if word is None:
            depth += (token.group() == b"(") - (token.group() == b")")
            continue
        upper = word.upper()
        if first:
            if upper != b"INSERT":
                return None
            first = False
        elif depth == 0 and upper in (b"VALUES", b"SELECT", b"WITH", b"FROM"):
            return None
        elif depth == 0 and upper == b"SETTINGS":
            settings = token.start()
        elif depth == 0 and upper == b"FORMAT":
            name = _FORMAT_NAME.match(sql, token.end())
            if not name or name.group(1).upper() == b"VALUES":
                return None
            cut = token.start() if settings is None else settings
            return sql[:cut].decode(), sql[cut : token.start()].decode(), name.group(1).decode(), name.end()
    return None


def lz4_decompress(data: bytes) -> bytes:
    """Every frame. clickhouse-connect makes one frame per native block, and lz4.frame.decompress() stops after the
    first without an error: every insert above 16,384 rows would lose the rest in silence."""
    out = []
    while data:
        frame = lz4.frame.LZ4FrameDecompressor()
        out.append(frame.decompress(data))
        if not frame.eof:
            raise ValueError("lz4 frame cut short")
        data = frame.unused_data or b""
    return b"".join(out)


DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4_decompress,
    "zstd": zstd.decompress,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": lambda body: zstd.compress(body, 1),
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": lambda body: zlib.compress(body, 1),
}


def multipart(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """The named parts of multipart/form-data, by the standard library (Starlette would want another package)."""
    message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    parts = []
    for part in message.walk():
        name, payload = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            parts.append((name, payload))
    return parts
