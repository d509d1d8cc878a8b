"""Where an address is, from a MaxMind-format file where the operator has one. The address itself goes no further."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import maxminddb


class Place(NamedTuple):
    """What the file says of an address; None where it does not."""

    country: str | None  # ISO 3166-1 alpha-2
    latitude: float | None
    longitude: float | None


NOWHERE = Place(None, None, None)


def places(file: Path | None) -> Callable[[str], Place]:
    """Gives the place of an address. Raises as maxminddb does for a bad file."""
    if file is None:
        return lambda _: NOWHERE
    reader = maxminddb.open_database(str(file))

    def place_of(address: str) -> Place:
        try:
            found = reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):
            return NOWHERE
        if not isinstance(found, dict):
            return NOWHERE
        country, location = found.get("country"), found.get("location")
        code = country.get("iso_code") if isinstance(country, dict) else None
        here = location if isinstance(location, dict) else {}
        known = code if isinstance(code, str) and len(code) == 2 else None
        return Place(known, _degrees(here.get("latitude")), _degrees(here.get("longitude")))

    return place_of


def countries(file: Path | None) -> Callable[[str], str | None]:
    """Gives the country of an address, None where it is not known. Raises as maxminddb does for a bad file."""
    place_of = places(file)
    return lambda address: place_of(address).country


def _degrees(value: object) -> float | None:
    return float(value) if isinstance(value, float | int) and not isinstance(value, bool) else None
