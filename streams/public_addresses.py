"""Which addresses are of the public internet, for URLs that tenants write."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_literal(host: str) -> bool:
    """Whether this is an address, and no name."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an address is of the public internet, whatever it is wrapped into."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(a.is_global and not a.is_multicast and not a.is_reserved for a in (found, *_inner(found)))


async def resolve(host: str, executor: Executor | None = None) -> Sequence[str]:
    """Addresses of a host; none where it has none, or its name server does not say."""

    def ask() -> list[str]:
        return list(dict.fromkeys(str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)))

    try:
        return await asyncio.get_running_loop().run_in_executor(executor, ask)
    except (OSError, UnicodeError):
        return ()


def _inner(address: IPv4Address | IPv6Address) -> Iterable[IPv4Address]:
    if isinstance(address, IPv4Address):
        return ()
    teredo = address.teredo or ()
    nat64 = (IPv4Address(int(address) & 0xFFFFFFFF),) if address in _NAT64 else ()
    return tuple(filter(None, (address.ipv4_mapped, address.sixtofour, *teredo, *nat64)))
