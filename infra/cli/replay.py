"""`fw replay`: a part of history applied to a live projection again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from infra.cli.projection_work import USAGE, DataDir, Json, work
from infra.embedded.errors import CannotStart
from projections import PROJECTIONS

if TYPE_CHECKING:
    from projections.rebuild.site import Site

Name = Annotated[str, typer.Option("--projection", help=f"One of {', '.join(PROJECTIONS)}.", show_default=False)]
From = Annotated[str | None, typer.Option("--from", help="Facts appended from then on: 2026-11-20 or 2026-11-20T14:05:00Z.")]
To = Annotated[str | None, typer.Option("--to", help="Facts appended before then.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="The id of the one tenant whose facts are wanted.")]
MaxLag = Annotated[
    float, typer.Option("--max-lag", min=0.1, max=3600, help="Seconds that the live worker may be behind; else the replay waits.")
]


def replay(
    *,
    projection: Name,
    tenant: Tenant = None,
    from_: From = None,
    to: To = None,
    max_lag: MaxLag = 1.0,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Apply a part of history to a live projection again: rows that an accident took come back, nothing is counted twice.

    The same call after a kill goes on where it was. What hangs on the order of decisions is refused: `fw rebuild` is for that.

    fw replay --projection viewer_sessions --from 2026-11-20 --to 2026-11-21

    fw replay --projection samples --tenant 0190f5c0-0000-7000-8000-000000000000
    """

    from projections.rebuild.replay import BEGINNING, END, Part
    from projections.rebuild.replay import replay as run

    part = Part(_time("--from", from_) or BEGINNING, _time("--to", to) or END, _tenant(tenant))
    if part.start >= part.end:
        raise CannotStart("--from must be before --to", USAGE)

    async def task(site: Site) -> int:
        return await run(site, part, max_lag)

    applied = work(projection, data_dir, as_json, "replay", task)
    print(json.dumps({"projection": projection, "applied": applied}) if as_json else f"{applied:,} records were applied again.")


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CannotStart(f"{option} must be a time like 2026-11-20 or 2026-11-20T14:05:00Z, not {text!r}", USAGE) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _tenant(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise CannotStart(f"--tenant must be a tenant's id, not {text!r}", USAGE) from None
