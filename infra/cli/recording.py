"""`fw replay-recording`: recorded triggers of a real MistServer, POSTed to an edge agent."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from infra.recordings.replay import Answered, Summary


def replay_recording(
    recording: Annotated[str, typer.Argument(metavar="FILE", help="A file, or the name of a recording that comes with fw.")],
    stream_key: Annotated[str, typer.Option(envvar="FW_STREAM_KEY", help="Key of the stream to publish to.")],
    edge: Annotated[str, typer.Option(help="Address of the edge agent.")] = "http://127.0.0.1:18007",
    speed: Annotated[float, typer.Option(min=0, help="2: twice as fast as recorded; 0: as fast as it is answered.")] = 1.0,
    run_id: Annotated[str | None, typer.Option(help="The id of an earlier run sends the same events again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON at the end, nothing else.")] = False,
) -> None:
    """POST recorded MistServer triggers to an edge agent, each over its own TCP connection, at their recorded pace.

    The recorded stream key is replaced by --stream-key, and the stream's name by what the agent answers.

    Examples:

      fw replay-recording 1-publisher-3-hls-viewers --stream-key sk_… --speed 10

      fw replay-recording my.jsonl --edge http://10.0.0.7:18007 --stream-key sk_… --json
    """
    from infra.recordings import NoRecording, read
    from infra.recordings.replay import AgentUnreachable, replay
    from streams.ids import new_id

    async def show(answered: Answered) -> None:
        typer.echo(line(answered), err=True)

    try:
        run = UUID(run_id) if run_id else new_id()
        heard = None if as_json else show
        summary = asyncio.run(replay(read(recording), edge_url=edge, stream_key=stream_key, run_id=run, speed=speed, heard=heard))
    except (NoRecording, AgentUnreachable) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except ValueError:
        typer.echo(f"--run-id is a UUID, not {run_id!r}", err=True)
        raise typer.Exit(2) from None
    typer.echo(json.dumps(summary.as_dict()) if as_json else sentence(summary))


def line(answered: Answered) -> str:
    """One trigger on one line; the body is left out, for it has the stream key."""
    trigger, said = answered.trigger, answered.answer
    again = f" after {answered.attempts} attempts" if answered.attempts > 1 else ""
    if trigger.name in ("RTMP_PUSH_REWRITE", "PUSH_REWRITE") and not said:
        said = "(refused)"
    elif trigger.name == "RTMP_PUSH_REWRITE":
        said = "(let through)"
    return f"{trigger.at_seconds:8.3f}  {trigger.name:<18} {answered.status}  {said}{again}"


def sentence(summary: Summary) -> str:
    streams = ", ".join(f"{recorded} is {ours}" for recorded, ours in summary.streams.items()) or "no stream"
    return (
        f"{sum(summary.triggers.values())} triggers in {summary.seconds:.1f} s ({streams}); {len(summary.refused_publishers)} "
        f"publishers and {summary.refused_viewers} viewers refused; {summary.retries} retries; run id {summary.run_id}"
    )


if __name__ == "__main__":
    typer.run(replay_recording)
