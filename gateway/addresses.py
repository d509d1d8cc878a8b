"""Whose request it is, by address, and how often an address may ask.

Invariant: X-Forwarded-For is believed only from proxies that the settings name, and only its last part that is none of them:
whoever asks can write anything before it. An address is used to count and to find a place, and goes no further.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

REMEMBERED: Final = 50_000
Networks = Sequence[IPv4Network | IPv6Network]


def client_address(peer: str, forwarded_for: str | None, trusted: Networks) -> str:
    """The address that asks."""
    if not forwarded_for or not trusted or not _within(peer, tuple(trusted)):
        return peer
    for text in reversed([part.strip() for part in forwarded_for[-1000:].split(",")]):
        if not _is_address(text):
            break
        peer = text
        if not _within(text, tuple(trusted)):
            break
    return peer


@lru_cache(maxsize=4096)
def _within(text: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    if not _is_address(text):
        return False
    address = ip_address(text)
    return any(address in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class Buckets:
    """So many requests a second of an address, and a burst. The memory is bounded: who is forgotten begins anew."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, float(burst), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> bool:
        """Whether one more request is within the limit."""
        now = self._clock()
        left, at = self._left.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        is_allowed = left >= 1
        self._left[who] = (left - 1 if is_allowed else left, now)
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return is_allowed
