"""Which pages may show a stream.

The media server does not tell the Origin or Referer of a request: of a viewer's connection it has the URL and no header (CONTRACT
section 3, USER_NEW). What is known of the page is what a signed token says (`origin`), or what the player put into the URL
(`?origin=`). The first is as good as its signature; the second keeps honest pages out, as a Referer does, and nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs, urlsplit

PARAMETER: Final = "origin"
MAX_CHARACTERS: Final = 512
_PORTS: Final = {"http": 80, "https": 443}


def told_origin(url: str) -> str | None:
    """What the player put into the URL of its request."""
    if f"{PARAMETER}=" not in url:
        return None
    try:
        found = parse_qs(urlsplit(url).query, max_num_fields=64).get(PARAMETER, [""])[0]
    except ValueError:
        return None
    return found if 0 < len(found) <= MAX_CHARACTERS else None


def is_allowed(origin: str, allowed: Sequence[str]) -> bool:
    """Whether an origin, or the URL of a page, is one of those allowed: `https://example.org`, `example.org`, `*.example.org`."""
    page = _parts(origin)
    return page is not None and any(_matches(page, wanted) for wanted in allowed)


def _matches(page: tuple[str, str, int | None], wanted: str) -> bool:
    scheme, host, port = page
    if "://" in wanted:
        of = _parts(wanted)
        if of is None or (of[0], of[2]) != (scheme, port):
            return False
        return _host_matches(host, of[1])
    name, _, number = wanted.lower().rstrip(".").partition(":")
    return _host_matches(host, name) and (not number or number == str(port))


def _host_matches(host: str, wanted: str) -> bool:
    if wanted.startswith("*."):
        return host.endswith(wanted[1:]) and len(host) > len(wanted) - 1
    return host == wanted


def _parts(text: str) -> tuple[str, str, int | None] | None:
    """(scheme, host, port) of an origin or URL; None of anything else."""
    try:
        found = urlsplit(text if "://" in text else f"https://{text}")
        scheme, host, port = found.scheme.lower(), (found.hostname or "").rstrip("."), found.port
    except ValueError:
        return None
    return (scheme, host, port or _PORTS.get(scheme)) if host and scheme in _PORTS else None
