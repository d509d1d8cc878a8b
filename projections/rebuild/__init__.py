"""Projections thrown away and made again, while traffic runs: rebuild, verify, replay. See docs/rebuilding.md."""
