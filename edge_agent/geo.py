"""The country of an address: an edge knows it as the rest of the platform does."""

from __future__ import annotations

from streams.geoip import countries

__all__ = ["countries"]
