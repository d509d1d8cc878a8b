"""ClickHouse's HTTP protocol over the embedded engine: enough that unmodified clients work with their defaults.

Invariant: the client of a ClickHouse cluster and the client of this are the same code. Not here: streamed answers
(results are buffered), progress headers, native-block `compress=1`, users and roles.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hmac
import os
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from infra.embedded.clickhouse_engine import Answer, Engine  # first: chDB wants to be imported in the main thread, early

import orjson  # isort: skip
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from infra.embedded.clickhouse_statements import COMPRESS, DECOMPRESS, Fail, multipart

USER = "default"
MAX_BODY_BYTES = 512 << 20
QUEUE = 256
TEXT = "text/plain; charset=UTF-8"


class Door:
    """Requests in, answers out. Past a bounded number of waiting requests the answer is code 202, HTTP 503."""

    def __init__(self, engine: Engine, password: str, workers: int) -> None:
        self._engine = engine
        self._password = password.encode()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="chdb")
        self._waiting, self._limit = 0, workers + QUEUE

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._engine.close()

    async def root(self, request: Request) -> Response:
        if request.method == "HEAD" or (request.method == "GET" and "query" not in request.query_params):
            return Response("Ok.\n")
        return await self._query(request)

    async def ping(self, _: Request) -> Response:
        return Response("Ok.\n")

    async def _query(self, request: Request) -> Response:
        parameters = dict(request.query_params)
        headers = {
            "X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Server-Display-Name": "embedded",
        }
        try:
            self._authorize(request)
            answer = await self._run(request, parameters)
        except Fail as fail:
            text = fail.text if "(version" in fail.text else f"{fail.text} (version {self._engine.version} (chDB))"
            return Response(text + "\n", fail.status, headers | {"X-ClickHouse-Exception-Code": str(fail.code)}, TEXT)
        except ClientDisconnect:
            return Response(status_code=499)
        body = answer.body
        headers["X-ClickHouse-Summary"] = orjson.dumps({key: str(value) for key, value in answer.summary.items()}).decode()
        if parameters.get("enable_http_compression") == "1" and len(body) > 4096:
            accepted = [word.split(";")[0].strip() for word in request.headers.get("accept-encoding", "").split(",")]
            coding = next((word for word in accepted if word in COMPRESS), None)
            if coding:
                body = await asyncio.to_thread(COMPRESS[coding], body)
                headers["Content-Encoding"] = coding
        return Response(body, 200, headers, TEXT)

    async def _run(self, request: Request, parameters: dict[str, str]) -> Answer:
        if parameters.get("compress") == "1" or parameters.get("decompress") == "1":
            raise Fail(48, "native block compression is not supported, use Content-Encoding", "NOT_IMPLEMENTED")
        if self._waiting >= self._limit:
            raise Fail(202, "Too many simultaneous queries", "TOO_MANY_SIMULTANEOUS_QUERIES")
        self._waiting += 1
        try:
            body = await self._body(request)
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, request, parameters, body)
        finally:
            self._waiting -= 1

    async def _body(self, request: Request) -> bytes:
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise Fail(307, "request body too large", "TOO_MANY_BYTES", 413)
            chunks.append(chunk)
        return b"".join(chunks)

    def _work(self, request: Request, parameters: dict[str, str], body: bytes) -> Answer:
        coding = request.headers.get("content-encoding", "identity")
        if coding != "identity":
            if coding not in DECOMPRESS:
                raise Fail(48, f"Unknown Content-Encoding {coding}", "NOT_IMPLEMENTED")
            try:
                body = DECOMPRESS[coding](body)
            except Exception as e:  # noqa: BLE001  four libraries, four families of errors, one meaning
                raise Fail(33, f"Cannot decompress the body: {e}", "CANNOT_READ_ALL_DATA") from None
        tables = []
        content_type = request.headers.get("content-type", "")
        if content_type.startswith("multipart/form-data"):
            for name, value in multipart(content_type, body):
                if name == "query" or name.startswith("param_"):  # a client moves long parameters here
                    parameters[name] = value.decode()
                else:
                    tables.append((name, value))
            body = b""
        query = parameters.get("query", "").encode()
        sql = query + b"\n" + body if query and body else query or body
        if not sql.strip():
            raise Fail(62, "Empty query", "SYNTAX_ERROR")
        return self._engine.run(parameters, sql, tables, read_only=request.method == "GET")

    def _authorize(self, request: Request) -> None:
        user, key = USER, ""
        header = request.headers.get("authorization", "")
        if "x-clickhouse-user" in request.headers:
            user, key = request.headers["x-clickhouse-user"], request.headers.get("x-clickhouse-key", "")
        elif header.lower().startswith("basic "):
            try:
                user, _, key = base64.b64decode(header[6:]).decode().partition(":")
            except ValueError:
                user = ""
        elif "user" in request.query_params:
            user, key = request.query_params["user"], request.query_params.get("password", "")
        # both compared, in constant time, before deciding
        if not (hmac.compare_digest(user.encode(), USER.encode()) & hmac.compare_digest(key.encode(), self._password)):
            raise Fail(
                516,
                f"{user}: Authentication failed: password is incorrect, or there is no user with such name",
                "AUTHENTICATION_FAILED",
            )


def application(data_dir: Path, memory_mb: int, workers: int, password: str) -> Starlette:
    door = Door(Engine(data_dir, memory_mb << 20), password, workers)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        door.close()  # after the requests under way are finished

    return Starlette(
        lifespan=lifespan,
        routes=[Route("/ping", door.ping), Route("/replicas_status", door.ping), Route("/", door.root, methods=["GET", "POST"])],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--memory-mb", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=max(4, 2 * (os.cpu_count() or 2)))
    arguments = parser.parse_args()
    app = application(arguments.data_dir, arguments.memory_mb, arguments.workers, os.environ["FW_CLICKHOUSE_PASSWORD"])
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False, timeout_graceful_shutdown=15)


if __name__ == "__main__":
    main()
