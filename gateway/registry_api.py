"""The schemas of the log in the Confluent Schema Registry API, read only, so that any Avro client can read a topic.

Invariant: ids are those in the records' prefixes; they come from the lock file and never change. Writing is refused: schemas
change by a commit.
"""

from __future__ import annotations

import json
import re
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from streams import registry
from streams.registry import Registered

_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_TYPE: Final = "application/vnd.schemaregistry.v1+json"


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type=_TYPE)


def _error(code: int, message: str) -> Response:
    """Confluent's error codes begin with the HTTP status."""
    return _json({"error_code": code, "message": message}, int(str(code)[:3]))


def _shown(found: Registered) -> dict[str, object]:
    return {"subject": found.subject, "version": found.version, "id": found.id, "schemaType": "AVRO", "schema": found.text}


def _version(request: Request) -> Registered | Response:
    """The version that a path names, or why there is none."""
    subject, wanted = request.path_params["subject"], request.path_params["version"]
    known = registry.versions(subject)
    if not known:
        return _error(40401, f"Subject '{subject}' not found.")
    if wanted in ("latest", "-1"):
        return known[-1]
    if not _NUMBER.fullmatch(wanted):
        return _error(42202, f"The specified version '{wanted[:20]}' is not a valid version id.")
    found = next((r for r in known if r.version == int(wanted)), None)
    return found or _error(40402, f"Version {wanted[:20]} not found.")


def _by_id(request: Request) -> Registered | Response:
    wanted = request.path_params["id"]
    found = registry.by_id().get(int(wanted)) if _NUMBER.fullmatch(wanted) else None
    return found or _error(40403, f"Schema {wanted[:20]} not found.")


async def root(_: Request) -> Response:
    return _json({})


async def subjects(_: Request) -> Response:
    return _json(sorted(registry.latest()))


async def versions(request: Request) -> Response:
    subject = request.path_params["subject"]
    known = registry.versions(subject)
    return _json([r.version for r in known]) if known else _error(40401, f"Subject '{subject}' not found.")


async def version(request: Request) -> Response:
    found = _version(request)
    return found if isinstance(found, Response) else _json(_shown(found))


async def version_schema(request: Request) -> Response:
    found = _version(request)
    return found if isinstance(found, Response) else Response(found.text, media_type=_TYPE)


async def schema(request: Request) -> Response:
    found = _by_id(request)
    return found if isinstance(found, Response) else _json({"schema": found.text})


async def schema_text(request: Request) -> Response:
    found = _by_id(request)
    return found if isinstance(found, Response) else Response(found.text, media_type=_TYPE)


async def schema_subjects(request: Request) -> Response:
    found = _by_id(request)
    return found if isinstance(found, Response) else _json([found.subject])


async def schema_versions(request: Request) -> Response:
    found = _by_id(request)
    return found if isinstance(found, Response) else _json([{"subject": found.subject, "version": found.version}])


async def types(_: Request) -> Response:
    return _json(["AVRO"])


async def config(_: Request) -> Response:
    return _json({"compatibilityLevel": "BACKWARD_TRANSITIVE"})


async def mode(_: Request) -> Response:
    return _json({"mode": "READONLY"})


async def look_up(request: Request) -> Response:
    """POST of a schema to its subject: which id it has. What serializers ask that register nothing themselves."""
    subject = request.path_params["subject"]
    known = registry.versions(subject)
    if not known:
        return _error(40401, f"Subject '{subject}' not found.")
    try:
        body = await _bounded(request)
        asked = json.loads(orjson.loads(body)["schema"])
    except (ValueError, KeyError, TypeError):
        return _error(42201, 'Send {"schema": "…"} with an Avro schema as text.')
    found = next((r for r in known if r.schema == asked), None)
    return _json(_shown(found)) if found else _error(40403, "Schema not found.")


async def _bounded(request: Request, limit_bytes: int = 1 << 20) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise ValueError("too long")
    return body


async def read_only(_: Request) -> Response:
    return _error(42205, "The registry is read-only: schemas change by a commit to schemas/avro.")


ROUTES: Final[tuple[BaseRoute, ...]] = (
    Route("/", root),
    Route("/subjects", subjects),
    Route("/subjects/{subject}", look_up, methods=["POST"]),
    Route("/subjects/{subject}", read_only, methods=["DELETE"]),
    Route("/subjects/{subject}/versions", versions),
    Route("/subjects/{subject}/versions", read_only, methods=["POST"]),
    Route("/subjects/{subject}/versions/{version}", version),
    Route("/subjects/{subject}/versions/{version}", read_only, methods=["DELETE"]),
    Route("/subjects/{subject}/versions/{version}/schema", version_schema),
    Route("/schemas/ids/{id}", schema),
    Route("/schemas/ids/{id}/schema", schema_text),
    Route("/schemas/ids/{id}/subjects", schema_subjects),
    Route("/schemas/ids/{id}/versions", schema_versions),
    Route("/schemas/types", types),
    Route("/config", config),
    Route("/config/{subject}", config),
    Route("/mode", mode),
)
