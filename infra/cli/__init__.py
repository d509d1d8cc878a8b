"""The `fw` command line. Invariant: `fw --help` imports nothing heavy; a command imports what it needs when it runs."""

from infra.cli.app import main

__all__ = ["main"]
