"""The same draws in every run: what Hypothesis chooses depends on its seed alone.

Hypothesis draws one value in twenty from the constants of whatever modules of ours are imported. So `derandomize` tries other
runs when another test ran before, or when a number changed somewhere in the gateway; what was found yesterday is missed today.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants


@contextmanager
def by_the_seed_alone() -> Iterator[None]:
    """Within it, nothing is drawn from our modules."""
    none = Constants()
    with patch.object(providers, "_get_local_constants", lambda: none):
        providers.CONSTANTS_CACHE.cache.clear()
        try:
            yield
        finally:
            providers.CONSTANTS_CACHE.cache.clear()
