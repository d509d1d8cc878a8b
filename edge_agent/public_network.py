"""Connections to addresses of the public internet, for URLs that tenants write.

Invariant: what is checked is what is connected to: the name is resolved once, and the connection goes to one of the addresses
that passed. A name that points into the operator's own network is refused, also when it points there only sometimes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpcore

from streams.public_addresses import is_public, resolve

RESOLVERS: Final = 4  # threads: a name server that hangs must not take those of the journal


class Forbidden(Exception):
    """The host has no address that may be connected to."""


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """How httpcore connects. `allows_private`: to any address, for an installation that is a network of its own."""

    def __init__(self, *, allows_private: bool) -> None:
        self._allows_private = allows_private
        self._backend = httpcore.AnyIOBackend()
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="webhook-name")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        problem: Exception = Forbidden(f"{host} is in a private network")
        for address in await self._addresses(host):
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str) -> Sequence[str]:
        found = await resolve(host, self._resolvers)
        if not found:
            raise httpcore.ConnectError(f"{host} has no address")
        return [address for address in found if self._allows_private or is_public(address)]

    def close(self) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)
