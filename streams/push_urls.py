"""URLs of push targets: which may be, and what may be shown of them.

Invariant: what is shown tells where the stream goes, never with which key. Refused is what would not go to another service: an
address of a private network, and parameters that a media server takes for its own and writes files by.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from streams.public_addresses import is_literal, is_public

SCHEMES: Final = ("rtmp", "rtmps", "srt")
MAX_CHARACTERS: Final = 1024
HIDDEN: Final = "…"
_LOCAL_NAMES: Final = (".local", ".localhost", ".internal", ".lan", ".home", ".arpa")
_FILE_PARAMETERS: Final = frozenset({"m3u8", "split", "append", "nounlink", "maxentries", "targetage", "noendlist"})


def problem(url: str, *, allows_private: bool = False) -> str | None:
    """Why a stream may not be pushed there, as a sentence that says what to do; None: it may.

    A name is looked at, not resolved: `streams.public_addresses.resolve` does that.
    """
    if len(url) > MAX_CHARACTERS:
        return f"url has {len(url)} characters, {MAX_CHARACTERS} are allowed: shorten it"
    if not all("!" <= c <= "~" for c in url):
        return "url has blanks, control characters or letters outside ASCII: write them as %20 and so on"
    if "$" in url:
        return "url has a $, which begins a variable at the media server: write it as %24"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "url is none: it must look like rtmp://live.example.org/app/KEY"
    if parts.scheme not in SCHEMES:
        return f"url must begin with {', '.join(f'{s}://' for s in SCHEMES)}"
    if not host or parts.fragment:
        return "url must name a host and have no fragment, such as rtmp://live.example.org/app/KEY"
    if not allows_private and not _may_be_public(host):
        return "url points into a private network: name a host of the public internet"
    return _parameter_problem(parts.query)


def shown(url: str) -> str:
    """Scheme, host and the first part of the path where others follow (the application); of parameters nothing."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    application, slash, key = parts.path.lstrip("/").partition("/")
    path = f"/{application}/{HIDDEN if key else ''}" if slash else f"/{HIDDEN}" if application else ""
    return f"{parts.scheme}://{host}{path}{f'?{HIDDEN}' if parts.query else ''}"


def _parameter_problem(query: str) -> str | None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.lower() in _FILE_PARAMETERS:
            return f"url has the parameter {name}, which the media server would take for its own: leave it out"
        if name.lower() == "mode" and value.lower() != "caller":
            return "url asks the media server to wait for a connection (mode): only mode=caller is possible"
    return None


def _may_be_public(host: str) -> bool:
    """By the name alone. Numbers that are no dotted address (0x7f.1, 2130706433) are ways to write one in disguise."""
    if is_literal(host):
        return is_public(host)
    name = host.lower().rstrip(".")
    last = name.rpartition(".")[2]
    return "." in name and not name.endswith(_LOCAL_NAMES) and not last[:1].isdigit() and not last.startswith("0x")
