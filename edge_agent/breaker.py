"""Circuit breakers, one a host: who failed often in a row is left alone for a while, then tried with a single request."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

FAILURES: Final = 5
PAUSE_SECONDS: Final = 10.0
HOSTS: Final = 1024


@dataclass(slots=True)
class Breaker:
    failures: int = 0
    in_flight: int = 0
    opened_at: float | None = None
    is_probed: bool = False

    def lets(self, now: float) -> bool:
        """Whether a request may be made. After the pause one is, and what becomes of it decides."""
        if self.opened_at is None:
            return True
        if self.is_probed or now - self.opened_at < PAUSE_SECONDS:
            return False
        self.is_probed = True
        return True

    def succeeded(self) -> None:
        self.failures, self.opened_at, self.is_probed = 0, None, False

    def failed(self, now: float) -> None:
        self.failures, self.is_probed = self.failures + 1, False
        if self.failures >= FAILURES:
            self.opened_at = now


class Breakers:
    """The hosts that were asked last."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[str, Breaker] = OrderedDict()

    def of(self, host: str) -> Breaker:
        found = self._hosts.setdefault(host, Breaker())
        self._hosts.move_to_end(host)
        if len(self._hosts) > HOSTS:
            oldest = next(iter(self._hosts))
            if not self._hosts[oldest].in_flight:
                del self._hosts[oldest]
        return found

    @property
    def open_total(self) -> int:
        return sum(breaker.opened_at is not None for breaker in self._hosts.values())
