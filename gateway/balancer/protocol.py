"""MistServer's balancer protocol (CONTRACT 6.7): what media servers ask of MistUtilLoad, they may ask here.

Invariants: answers have the bytes of the recordings. Reading needs no credential (the port is for media servers and proxies, not
for the world), changing the weights needs the operator's. A request is bounded in size and rate, and an error tells nothing of
what is inside. Which nodes there are is decided elsewhere: `addserver` and `delserver` are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.types import Receive, Scope, Send

from gateway.addresses import Buckets, client_address
from gateway.auth import Operator
from gateway.balancer.balancer import Asked
from gateway.balancer.displays import Displays
from gateway.balancer.endpoints import playback_url
from gateway.balancer.media_json import pretty
from gateway.balancer.names import Names
from gateway.balancer.picture import NodeState
from gateway.mutations.balancer import set_weights
from gateway.runtime import Context, Runtime
from gateway.send import Accepted, Declined
from streams.balancing.geography import cell_of
from streams.balancing.score import Purpose
from streams.errors import Transient
from streams.ids import OPERATOR_TENANT
from streams.telemetry import log

MAX_QUERY_BYTES: Final = 4096
MAX_PATH_BYTES: Final = 512
MAX_FIELDS: Final = 20
MAX_TAGS: Final = 16
MAX_TAG_POINTS: Final = 100_000
PER_SECOND, BURST = 500, 1000
COMMON: Final = [
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS, HEAD"),
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"*"),
    (b"access-control-max-age", b"600"),
    (b"access-control-request-headers", b"*"),
    (b"access-control-request-method", b"GET"),
    (b"cache-control", b"no-cache, no-store, must-revalidate"),
    (b"expires", b"0"),
    (b"pragma", b"no-cache"),
]
TEXT: Final = (b"content-type", b"text/plain")
BUSY: Final = "The platform cannot answer this at the moment: try again."
logger = log(__name__)
Headers = Mapping[bytes, bytes]


class Refused(Exception):
    """Not to be answered with what was asked for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Request:
    """What was asked, checked."""

    def __init__(self, scope: Scope, runtime: Runtime) -> None:
        self.headers: Headers = dict(scope["headers"])
        if len(scope["query_string"]) > MAX_QUERY_BYTES or len(scope["raw_path"]) > MAX_PATH_BYTES:
            raise Refused(414, "The request is too long.")
        try:
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError:
            raise Refused(400, f"A request may have {MAX_FIELDS} parameters.") from None
        self.query = dict(query)
        self.path: str = scope["path"].lstrip("/")
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = self.header(b"x-forwarded-for")
        self.address = client_address(peer, forwarded, runtime.trusted_proxies)

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def position(self, runtime: Runtime) -> tuple[str | None, str | None]:
        """The cell and the country of who asks: what the request says, else what the address tells."""
        place = runtime.place_of(self.address)
        latitude = _number(self.query.get("lat") or self.header(b"x-latitude"))
        longitude = _number(self.query.get("lon") or self.header(b"x-longitude"))
        if latitude is None or longitude is None:
            latitude, longitude = place.latitude, place.longitude
        cell = None if latitude is None or longitude is None else cell_of(latitude, longitude)
        return cell, place.country

    def tag_adjust(self) -> Mapping[str, int]:
        """Points for tags; what is no such rule is none, as for MistServer."""
        text = self.query.get("tag_adjust") or self.header(b"x-tag-adjust")
        try:
            found = orjson.loads(text) if text else {}
        except orjson.JSONDecodeError:
            return {}
        if not isinstance(found, dict) or len(found) > MAX_TAGS:
            return {}
        return {tag: value for tag, value in found.items() if type(value) is int and abs(value) <= MAX_TAG_POINTS}


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _named(text: str) -> str:
    """A stream's name in a query, where a plus may have become a blank on its way."""
    return text.replace(" ", "+")


class BalancerApplication:
    """The ASGI application of the balancer's port."""

    def __init__(self, runtime: Runtime, fallback: str) -> None:
        self._runtime, self._balancer, self._fallback = runtime, runtime.balancer, fallback
        self._displays = Displays(runtime.balancer, runtime.database, runtime.clickhouse)
        self._buckets = Buckets(PER_SECOND, BURST)

    @property
    def _names(self) -> Names:
        return self._balancer.names

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            request = Request(scope, self._runtime)
            if scope["method"] == "OPTIONS":
                status, text = 200, ""
            elif scope["method"] not in ("GET", "HEAD", "POST"):
                raise Refused(405, "Use GET.")
            elif not self._buckets.take(request.address):
                raise Refused(429, "Too many requests: ask less often.")
            else:
                status, text = await self._answer(request)
        except Refused as refused:
            status, text = refused.status, refused.text
        except Exception as error:
            expected = isinstance(error, Transient | OSError | TimeoutError)
            logger.warning("a question could not be answered", error=repr(error), exc_info=None if expected else error)
            status, text = 503, BUSY
        await _send(send, status, text, is_head=scope["method"] == "HEAD")

    async def _answer(self, request: Request) -> tuple[int, str]:
        """Status and text; of a redirect the text is where to."""
        if request.path:
            return await self._balanced(request)
        query = request.query
        for name, display in (
            ("lstserver", self._displays.servers),
            ("weights", None),
            ("viewers", self._displays.viewers),
            ("stream", None),
            ("streamstats", None),
            ("source", None),
            ("ingest", None),
            ("host", None),
        ):
            if name in query and display is not None:
                return 200, pretty(await display())
            if name in query:
                return 200, await self._asked(name, query[name], request)
        if "addserver" in query or "delserver" in query:
            raise Refused(403, "Nodes are registered with the platform: `registerNode` of its API, or `fw edge enroll`.")
        return 200, pretty(self._displays.hosts())

    async def _asked(self, what: str, value: str, request: Request) -> str:
        match what:
            case "weights":
                return await self._weights(value, request)
            case "stream":
                return str(await self._displays.viewers_of(_named(value)))
            case "streamstats":
                return pretty({_named(value): await self._displays.statistics(_named(value))})
            case "source":
                return await self._source(_named(value), request)
            case "ingest":
                return self._ingest(value, request)
            case _:
                return self._displays.host(value)

    async def _balanced(self, request: Request) -> tuple[int, str]:
        """Who serves a viewer of the stream: its host, or with `proto` a redirect to it."""
        name = request.path
        protocol = request.query.get("proto", "")
        if protocol and playback_url("http://x", protocol, "x") is None:
            return 307, _redirect("", request)  # what MistServer answers to a protocol that no node has
        winner = await self._viewer(name, protocol, request)
        if winner is None or winner.base_url is None:
            return 200, self._fallback
        if not protocol:
            return 200, winner.host
        return 307, _redirect(playback_url(winner.base_url, protocol, name) or "", request)

    async def _viewer(self, name: str, protocol: str, request: Request) -> NodeState | None:
        stream = await self._names.find(name)
        if stream is None:
            return None
        cell, country = request.position(self._runtime)
        asked = Asked(Purpose.VIEWER, stream.tenant_id, stream.stream_id, protocol.upper(), cell, country, request.tag_adjust())
        return self._balancer.route(asked).winner

    async def _source(self, name: str, request: Request) -> str:
        """From which node another may pull the stream; never from itself."""
        fallback = request.query.get("fallback") or self._fallback
        stream = await self._names.find(name)
        if stream is None:
            return fallback
        cell, country = request.position(self._runtime)
        key = stream.tenant_id, stream.stream_id
        asked = Asked(
            Purpose.SOURCE,
            stream.tenant_id,
            stream.stream_id,
            "DTSC",
            cell,
            country,
            request.tag_adjust(),
            await self._displays.nodes_at(request.address, request.query.get("node", ""), key),
        )
        winner = self._balancer.route(asked).winner
        return fallback if winner is None else f"dtsc://{winner.host}"

    def _ingest(self, value: str, request: Request) -> str:
        """Where there is room for a publisher that needs so many percent of a node's CPU."""
        percent = _number(value) or 0.0
        cell, country = request.position(self._runtime)
        asked = Asked(
            Purpose.INGEST,
            OPERATOR_TENANT,
            cell=cell,
            country=country,
            tag_adjust=request.tag_adjust(),
            needed_cpu_ppm=int(min(100.0, max(0.0, percent)) * 10_000),
        )
        winner = self._balancer.route(asked).winner
        return self._fallback if winner is None else winner.host

    async def _weights(self, value: str, request: Request) -> str:
        """Reads them; with members, changes these."""
        try:
            wanted = orjson.loads(value) if value else {}
        except orjson.JSONDecodeError:
            wanted = None
        names = {"cpu": "cpu", "ram": "ram", "bw": "bandwidth", "geo": "geo", "bonus": "bonus"}
        if not isinstance(wanted, dict) or not all(k in names and type(v) is int for k, v in wanted.items()):
            raise Refused(
                400, 'weights is an object of whole numbers like {"cpu":500,"ram":500,"bw":1000,"geo":1000,"bonus":50}.'
            )
        if wanted:
            await self._change({names[name]: weight for name, weight in wanted.items()}, request)
        now = self._balancer.picture.weights
        return orjson.dumps({k: getattr(now, v) for k, v in sorted(names.items())}).decode()

    async def _change(self, wanted: Mapping[str, int], request: Request) -> None:
        caller = await self._runtime.credentials.caller(request.header(b"authorization"))
        if not isinstance(caller, Operator):
            raise Refused(401, "Changing the weights needs the operator's token: Authorization: Bearer TOKEN.")
        match await set_weights(Context(self._runtime, caller), wanted, None):
            case Accepted():
                pass
            case Declined(message=message):
                raise Refused(400, message)
            case _:
                raise Refused(503, BUSY)


def _redirect(url: str, request: Request) -> str:
    """Everything that the viewer's URL had goes along, the protocol without its value: as MistServer does it."""
    query = {**request.query, "proto": ""}
    return f"{url}?{urlencode(sorted(query.items()))}"


async def _send(send: Send, status: int, text: str, *, is_head: bool) -> None:
    body = text.encode()
    headers = [*COMMON, (b"content-length", str(len(body)).encode())]
    headers.append((b"location", body) if status == 307 else TEXT)
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": sorted(headers)})
    await send({"type": "http.response.body", "body": b"" if is_head else body})
