"""One run: load, faults meanwhile, quiet, and the comparison of everything with everything.

1. tenants, streams, subscriptions; nothing happens to a stream before its subscription has begun
2. load and faults, side by side; the load goes on until the last fault is over
3. the load ends what it began; everything is ready again; the edge has nothing left to send
4. the checks, until they agree or patience ends
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from infra.chaos import checker, commands
from infra.chaos.commands import Client, Made
from infra.chaos.faults import RECOVERY_SECONDS, USUAL, Faults, schedule
from infra.chaos.ledger import Ledger
from infra.chaos.platform import Platform, platform
from infra.chaos.recovery import Recovery
from infra.chaos.report import Report, report
from infra.chaos.samples import Sampler, keep_sampling
from infra.chaos.triggers import MistServer, keep_publishing
from infra.chaos.verify import verify
from infra.chaos.watchers import Watcher
from infra.embedded.errors import CannotStart
from streams.ingress.client import Publisher
from streams.ingress.credentials import issue

BACKLOG_SECONDS: Final = 300.0
KNOWN_SECONDS: Final = 180.0
INSTANCE: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PUBLISHED: Final = '{ __type(name: "StreamEvent") { possibleTypes { name } } }'


@dataclass(frozen=True, slots=True)
class Wish:
    """What to do. `seconds`: no fault begins later, and the load lasts at least so long."""

    seed: int
    kills: int
    seconds: float | None
    kinds: Sequence[str] = USUAL
    parts: Sequence[str] = ()  # none: all
    tenants: int = 2
    streams: int = 2  # of each tenant, that are published to
    pace_seconds: float = 0.5
    is_verified: bool = False  # every projection by `fw verify`, too


@dataclass(frozen=True, slots=True)
class Stage:
    """Who takes part."""

    clients: Sequence[Client]
    published: Sequence[tuple[Client, Made]]
    watchers: Sequence[Watcher]
    mist: MistServer
    sampler: Sampler


async def run(wish: Wish, data_dir: Path, say: Callable[[str], None]) -> Report:
    """Raises CannotStart, NotRecovered, Unanswered, TimeoutError (something never became quiet)."""
    async with platform(data_dir, say) as at:
        with Ledger(at.data_dir / f"chaos-{wish.seed}-{time.time_ns() // 1_000_000}.sqlite") as ledger:
            return await _run(wish, at, ledger, say)


async def _run(wish: Wish, at: Platform, ledger: Ledger, say: Callable[[str], None]) -> Report:
    dice = random.Random(wish.seed)
    parts = list(wish.parts or at.parts())
    if unknown := set(parts) - set(at.parts()):
        raise CannotStart(f"{', '.join(sorted(unknown))}: no such part runs; there are {', '.join(at.parts())}")
    planned = schedule(wish.seed, parts, at.proxies, wish.kinds, wish.kills)
    recovery = Recovery(at)
    faults = Faults(at, ledger, recovery, say)
    began = time.monotonic()
    try:
        async with _stage(wish, at, ledger, dice) as stage:
            say(f"{len(stage.clients)} tenants, {len(stage.published)} streams, {len(planned)} faults on {', '.join(parts)}")
            stop = asyncio.Event()
            stage.mist.is_disk_full = lambda: faults.is_edge_full
            faults.began = began = time.monotonic()
            async with asyncio.TaskGroup() as load:
                for n, client in enumerate(stage.clients):
                    shared = [made for by, made in stage.published if by is client]
                    load.create_task(commands.keep_changing(client, f"t{n}", shared, stop))
                for client, made in stage.published:
                    load.create_task(keep_publishing(stage.mist, made, stop, wish.pace_seconds))
                    load.create_task(keep_sampling(stage.sampler, client.tenant, made, stop))
                await faults.run(planned, None if wish.seconds is None else began + wish.seconds)
                await asyncio.sleep(max(0.0, began + (wish.seconds or 0.0) - time.monotonic()))
                stop.set()
            load_seconds = time.monotonic() - began
            say("the load has ended; waiting until nothing is on its way any more")
            await _quiet(at, stage)
            types = await _published(at, stage.clients[0])
            found, log = await checker.check(at, ledger, types, say)
            if wish.is_verified:
                found += await verify(at, say)
    finally:
        await recovery.close()
    return report(wish.seed, ledger, log, found, load_seconds, stage.clients, stage.mist, stage.watchers)


@asynccontextmanager
async def _stage(wish: Wish, at: Platform, ledger: Ledger, dice: random.Random) -> AsyncIterator[Stage]:
    async with (
        httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_keepalive_connections=20)) as http,
        Publisher(at.ingress, lambda: issue(bytes.fromhex(at.secret_key), f"chaos-{wish.seed}", None)) as publisher,
    ):
        operator = commands.operator(at.graphql, at.operator_token, ledger, random.Random(dice.random()), http)
        clients = [await commands.tenant(operator, f"Chaos {n}") for n in range(wish.tenants)]
        made = [(c, await commands.stream(c, f"published {n}")) for c in clients for n in range(wish.streams)]
        mist = MistServer(at.edge, ledger, random.Random(dice.random()), "".join(dice.choices(INSTANCE, k=16)))
        sampler = Sampler(publisher, ledger, random.Random(dice.random()), f"chaos-{wish.seed}")
        watchers = [Watcher(at.graphql_ws, c.token, m.id, ledger, asyncio.Event()) for c, m in made]
        watching = [asyncio.create_task(watcher.watch()) for watcher in watchers]
        try:
            async with asyncio.timeout(KNOWN_SECONDS):
                for watcher in watchers:
                    await watcher.begun.wait()
                for _, stream in made:
                    await _known(at, http, stream)
            yield Stage([*clients], made, watchers, mist, sampler)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)


async def _known(at: Platform, http: httpx.AsyncClient, stream: Made) -> None:
    """Returns when the edge knows the stream. The question is a re-check of a viewer, which makes no fact."""
    body = f"live+{stream.internal_name}\n127.0.0.9\n\nHLS\nhttp://127.0.0.1/x\n{'0' * 64}"
    while (await http.post(f"{at.edge}/trigger/USER_NEW", content=body)).text != "true":  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.05)


async def _quiet(at: Platform, stage: Stage) -> None:
    await at.all_ready(RECOVERY_SECONDS)
    async with asyncio.timeout(BACKLOG_SECONDS):
        await stage.sampler.settled()
        while await at.edge_backlog():  # noqa: ASYNC110  # another process's figure
            await asyncio.sleep(0.1)


async def _published(at: Platform, client: Client) -> list[str]:
    """The events that subscribers get, as the API itself says."""
    headers = {"Authorization": f"Bearer {client.token}"}
    answer = await client.http.post(at.graphql, json={"query": _PUBLISHED}, headers=headers)
    return [str(kind["name"]) for kind in answer.json()["data"]["__type"]["possibleTypes"]]
