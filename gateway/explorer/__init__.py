"""The in-browser explorer: one page and the files it needs, all of them here.

Invariant: the page loads nothing from another host; its Content-Security-Policy says so.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_ASSETS: Final = frozenset(
    {
        "explorer.js",
        "graphiql.min.css",
        "graphiql.min.js",
        "graphql-ws.min.js",
        "react-dom.production.min.js",
        "react.production.min.js",
    }
)


@cache
def _read(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()


def page(base: str) -> Response:
    """The page for an API at the path `base`."""
    body = _read("page.html").decode().replace("{base}", base)
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return Response(body, media_type="text/html", headers=headers)


async def asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        return PlainTextResponse("There is no such file.\n", status_code=404)
    return Response(
        _read(name),
        headers={
            "Content-Type": _TYPES[name.rpartition(".")[2]],
            "Cache-Control": "public, max-age=3600",
            "X-Content-Type-Options": "nosniff",
        },
    )
