"""`fw prepare`: what the first start would do, done before it."""

from __future__ import annotations

import typer

from infra.embedded import aot, jars


def prepare() -> None:
    """Download Kafka's jars and make the JVM's ahead-of-time cache (halves Kafka's start)."""
    jars.class_path(typer.echo)
    if aot.cache_file().exists():
        typer.echo("Everything is there.")
        return
    typer.echo("training the JVM once, about ten seconds")
    aot.make()
