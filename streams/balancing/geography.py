"""Where things are: H3 cells instead of coordinates, and how far cells are from each other.

Invariant: a position becomes a cell as soon as it is known, and nothing finer goes further. Distance is measured between the
cells' centres, so everybody in a cell is told the same.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import h3

RESOLUTION: Final = 5
"""About 253 km² a cell: what a decision is made with."""
COARSE_RESOLUTION: Final = 3
"""About 12,400 km² a cell: what is kept of who asked."""
MILLION: Final = 1_000_000
Vector = tuple[float, float, float]


def cell_of(latitude: float, longitude: float) -> str | None:
    """The cell of a position; None where it is none on Earth."""
    if not (math.isfinite(latitude) and math.isfinite(longitude) and abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    return str(h3.latlng_to_cell(latitude, longitude, RESOLUTION))


def coarse(cell: str | None) -> str | None:
    """The large cell around a cell."""
    return None if cell is None else str(h3.cell_to_parent(cell, COARSE_RESOLUTION))


@lru_cache(maxsize=65_536)
def centre(cell: str) -> Vector:
    """A cell's centre as a unit vector from the middle of the Earth."""
    latitude, longitude = map(math.radians, h3.cell_to_latlng(cell))
    return math.cos(latitude) * math.cos(longitude), math.cos(latitude) * math.sin(longitude), math.sin(latitude)


def distance_ppm(a: Vector, b: Vector) -> int:
    """The great-circle angle between two places, in millionths of half the way around the Earth."""
    cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return int(math.acos(min(1.0, max(-1.0, cosine))) / math.pi * MILLION)
