"""Processes that put parts of several packages together: the composition root of each."""
