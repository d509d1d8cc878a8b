"""`fw topics`: the difference between the cluster's topics and what the code says, shown or applied."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.kafka import Change

app = typer.Typer(name="topics", help="Kafka topics as data: show or apply the difference.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Directory of a running `fw up`; FW_DATA_DIR, else ./data.")]
Factor = Annotated[int | None, typer.Option(min=1, max=7, help="Copies of every partition; FW_KAFKA_REPLICATION_FACTOR, else 1.")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON.")]


@app.command()
def plan(data_dir: DataDir = None, replication_factor: Factor = None, as_json: Json = False) -> None:
    """Show what `apply` would change; changes nothing."""
    run(False, data_dir, replication_factor, as_json)


@app.command("apply")
def apply_(data_dir: DataDir = None, replication_factor: Factor = None, as_json: Json = False) -> None:
    """Create missing topics and set their configuration. Refuses to change a partition count."""
    run(True, data_dir, replication_factor, as_json)


def run(do: bool, data_dir: Path | None, replication_factor: int | None, as_json: bool) -> None:
    from infra.kafka import Refused, Replication, apply, plan
    from streams.errors import Transient
    from streams.settings import Reader, SettingsError, stack_file
    from streams.topics import Topics

    try:
        reader = Reader(os.environ, stack_file(data_dir or Path(os.environ.get("FW_DATA_DIR", "data"))))
        bootstrap = reader.text("FW_KAFKA_BOOTSTRAP", "kafka")
        factor = replication_factor or reader.number("FW_KAFKA_REPLICATION_FACTOR", 1, 1, 7)
        if reader.problems:
            raise SettingsError("\n".join(reader.problems))
        topics = Topics(os.environ.get("FW_TOPIC_PREFIX", ""))
        changes = asyncio.run((apply if do else plan)(bootstrap, topics, Replication(factor)))
    except (Refused, Transient, SettingsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(as_line(changes) if as_json else as_text(changes, len(topics.all())))


def as_text(changes: Sequence[Change], total: int) -> str:
    if not changes:
        return f"nothing to change: {total} topics are as they should be"
    return "\n".join(map(str, changes))


def as_line(changes: Sequence[Change]) -> str:
    from infra.kafka import ConfigChanged, TopicCreated

    created = [
        {"topic": c.topic, "partitions": c.partitions, "replication_factor": c.replication_factor, "config": dict(c.config)}
        for c in changes
        if isinstance(c, TopicCreated)
    ]
    changed = [
        {"topic": c.topic, "values": {key: {"before": before, "after": after} for key, (before, after) in c.values.items()}}
        for c in changes
        if isinstance(c, ConfigChanged)
    ]
    return json.dumps({"created": created, "changed": changed})


if __name__ == "__main__":
    app()
