"""What a person reads when a rebuild, a verification or a replay cannot go on."""

from __future__ import annotations


class CannotRebuild(Exception):
    """A sentence that says what is wrong and what to do. Readers see what they saw before."""


class Busy(CannotRebuild):
    """Another rebuild, verification or replay of the projection is under way."""
