"""Read models built from the log: each module one projection, its tables, fold and read functions. See README.md."""

from __future__ import annotations

from typing import Final

PROJECTIONS: Final = (
    "tenants",
    "streams",
    "journal",
    "viewer_sessions",
    "ingests",
    "stream_health",
    "samples",
    "push_targets",
    "node_registry",
    "routing",
)
"""Every projection, by the name of its module, whose `PROJECTION` says what it is.

Names, not modules: a process that runs or reads one projection does not carry the others.
"""
