"""MistServer's JSON API: one object of commands up, one object of answers down (CONTRACT section 6).

Invariants:
* Every command goes through one connection, one call at a time: a login holds for its connection, and what a person reads in
  the server's log has an order.
* MistServer answers 200 to anything and has no channel for errors. Only reading back tells whether a change took effect; what
  this client raises is about the way there (`Transient`) and the login (`Rejected`), never about a command.
* The password is read when it is asked for, is never kept, and is never in a message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from hashlib import md5
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from streams.errors import Rejected, Transient

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 30.0  # a blocking trigger of the controller that nobody answers stops its API for 25 s (CONTRACT 2.2)
MAX_ANSWER_BYTES: Final = 32 << 20  # 100,000 sessions are about 20 MiB
JSON_TYPE: Final = {"Content-Type": "application/json"}  # exactly: with a charset the body is ignored (CONTRACT 6.1)
_TIMEOUT: Final = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
_ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=300)


class MistApi:
    """The API of one MistServer. `url`: `http://host:4242`. Close it, or use it as a context."""

    def __init__(self, url: str, username: str = "", read_password: Callable[[], str] = str) -> None:
        parts = urlsplit(url)
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._username, self._read_password = username, read_password
        # Neither a proxy nor a netrc of the environment has a part in talking to the machine's own media server.
        self._http = httpx.AsyncClient(base_url=self.url, timeout=_TIMEOUT, limits=_ONE, trust_env=False, follow_redirects=False)
        self._turn = asyncio.Lock()
        self.calls_total = 0
        self.reading_seconds = 0.0  # CPU that was spent on reading answers

    async def __aenter__(self) -> MistApi:
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, commands: Mapping[str, object]) -> Mapping[str, object]:
        """The answers to these commands; logs in first when it is asked to.

        Transient: not reachable, or what came is no answer. Rejected: the login is refused. Whether a command that changes
        something took effect is not known after Transient.
        """
        async with self._turn:
            answer = await self._exchange(commands)
            status, challenge = _authorization(answer)
            if status == "CHALL" and challenge:
                answer = await self._exchange({**commands, "authorize": self._login(challenge)})
                status, _ = _authorization(answer)
        if status == "OK" or "LTS" in answer:  # without an account local callers are let in all the same (CONTRACT 6.2)
            return answer
        raise _refusal(status, self.url)

    async def document(self, path: str) -> Mapping[str, object]:
        """A JSON document that the API port serves without a login: `/<prometheus path>.json`. Raises Transient."""
        async with self._turn:
            return self._object(await self._read("GET", path, None))

    def _login(self, challenge: str) -> Mapping[str, str]:
        if not self._username:
            raise Rejected("MIST_LOGIN_NEEDED", f"{self.url} asks for a login: set --mist-user and --mist-password-file")
        try:
            password = self._read_password()
        except OSError as error:
            raise Rejected("MIST_LOGIN_NEEDED", f"the password of {self._username} cannot be read: {error}") from None
        return {"username": self._username, "password": _hex(_hex(password) + challenge)}

    async def _exchange(self, commands: Mapping[str, object]) -> Mapping[str, object]:
        return self._object(await self._read("POST", "/api2", msgspec.json.encode(commands)))

    async def _read(self, method: str, path: str, body: bytes | None) -> bytes:
        self.calls_total += 1
        headers = JSON_TYPE if body is not None else {}
        try:
            async with self._http.stream(method, path, content=body, headers=headers) as response:
                found = bytearray()
                async for piece in response.aiter_bytes():
                    found += piece
                    if len(found) > MAX_ANSWER_BYTES:
                        raise Transient(f"{self.url} answers with more than {MAX_ANSWER_BYTES} bytes")
                if response.status_code != 200:
                    raise Transient(
                        f"{self.url} answers {response.status_code}: it is no MistServer, or something stands before it"
                    )
                return bytes(found)
        except httpx.HTTPError as error:
            raise Transient(f"{self.url} is not reachable: {str(error) or type(error).__name__}") from None

    def _object(self, body: bytes) -> Mapping[str, object]:
        began = time.thread_time()
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Transient(f"{self.url} answers with something that is no JSON: it is no API of a MistServer") from None
        finally:
            self.reading_seconds += time.thread_time() - began
        if not isinstance(found, dict):
            raise Transient(f"{self.url} answers with JSON that is no object: it is no API of a MistServer")
        return found


def _authorization(answer: Mapping[str, object]) -> tuple[str, str]:
    """(status, challenge)."""
    found = answer.get("authorize")
    if not isinstance(found, dict):
        return "", ""
    status, challenge = found.get("status"), found.get("challenge")
    return status if isinstance(status, str) else "", challenge if isinstance(challenge, str) else ""


def _refusal(status: str, url: str) -> Exception:
    match status:
        case "CHALL":
            return Rejected("MIST_LOGIN_REFUSED", f"{url} refuses the login: user name or password is wrong")
        case "NOACC":
            advice = "create one in its interface, from the machine itself, before anybody else does"
            return Rejected("MIST_NO_ACCOUNT", f"{url} has no account yet and we are not local: {advice}")
        case _:
            return Transient(f"{url} answers without saying whether we may: it is no API of a MistServer")


def _hex(text: str) -> str:
    return md5(text.encode()).hexdigest()  # noqa: S324  # what MistServer asks for
