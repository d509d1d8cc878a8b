"""What is done to the platform: a schedule that a seed decides, and its execution.

Invariant: every fault ends: what was stopped is continued, what was cut is healed, what was filled is given room, also when the
run is interrupted. The next fault comes when the part of the one before is ready again, or, sometimes, before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from infra.chaos import disk
from infra.chaos.ledger import Fault, Ledger
from infra.chaos.platform import POLL_SECONDS, Platform
from infra.chaos.recovery import Place, Recovery

KINDS: Final = ("kill", "stop", "cut", "slow", "disk", "clickhouse-disk")
USUAL: Final = KINDS[:-1]
"""Without the one that breaks something: docs/reliability.md, "What is not promised"."""
RECOVERY_SECONDS: Final = 180.0
BETWEEN_KILLS: Final = 0.15  # of other faults for each kill, for each kind
FILLED: Final = {"disk": ("edge", "kafka", "postgres"), "clickhouse-disk": ("clickhouse",)}  # who writes to a disk


@dataclass(frozen=True, slots=True)
class Planned:
    kind: str
    part: str
    seconds: float  # how long it lasts; 0: a kill
    is_waited_for: bool = True  # else the next fault comes into this one's recovery
    pause_seconds: float = 0.5


def schedule(seed: int, parts: Sequence[str], proxied: Collection[str], kinds: Collection[str], kills: int) -> list[Planned]:
    """The faults of a run, the same for the same seed. Every part is killed as often as any other (give or take one)."""
    dice = random.Random(seed)
    order = [part for _ in range(-(-kills // len(parts))) for part in dice.sample(parts, len(parts))][:kills] if parts else []
    planned = []
    for part in order:
        if "kill" in kinds:
            planned.append(Planned("kill", part, 0.0, dice.random() < 0.8, dice.uniform(0.2, 1.0)))
        for kind in KINDS[1:]:
            if kind in kinds and dice.random() < BETWEEN_KILLS:
                among = {"stop": parts, "cut": sorted(proxied), "slow": sorted({*proxied, "disk"}), **FILLED}[kind]
                among = [name for name in among if name == "disk" or name in proxied or name in parts]
                if among:
                    planned.append(Planned(kind, dice.choice(among), dice.uniform(0.5, 3.0 if kind in FILLED else 10.0)))
    return planned


@dataclass(slots=True)
class Faults:
    """Executes planned faults, one after the other."""

    platform: Platform
    ledger: Ledger
    recovery: Recovery
    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    is_edge_full: bool = False
    _recoveries: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, planned: Sequence[Planned], until: float | None = None) -> None:
        """All of them, or those that begin before `until` (of time.monotonic). Returns when every part has recovered."""
        for fault in planned:
            if until is not None and time.monotonic() > until:
                break
            await self._run(fault)
            await asyncio.sleep(fault.pause_seconds)
        while self._recoveries:
            done, _ = await asyncio.wait(self._recoveries)
            for task in done:
                task.result()

    async def _run(self, fault: Planned) -> None:
        self.done += 1
        self.say(f"{self.done}: {fault.kind} {fault.part}" + (f" for {fault.seconds:.1f} s" if fault.seconds else ""))
        if fault.kind == "kill":
            await self._kill(fault)
            return
        at = time.monotonic() - self.began
        match fault.kind:
            case "stop":
                await self._stopped(fault)
            case "cut":
                self.platform.proxies[fault.part].cut()
                await asyncio.sleep(fault.seconds / 4)
                self.platform.proxies[fault.part].heal()
            case "slow":
                await self._slow(fault)
            case "disk" | "clickhouse-disk":
                await self._full(fault)
        await self.ledger.fault(Fault(fault.kind, fault.part, at, f"{fault.seconds:.1f} s"))

    async def _kill(self, fault: Planned) -> None:
        with contextlib.suppress(TimeoutError):  # one whose former recovery was not waited for
            async with asyncio.timeout(RECOVERY_SECONDS):
                while not self.platform.is_ready(fault.part):  # noqa: ASYNC110  # another process's file
                    await asyncio.sleep(POLL_SECONDS)
        pid, at = self.platform.pid(fault.part), time.monotonic() - self.began
        ends = await self.recovery.ends()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        recovery = asyncio.create_task(self._recovered(fault.part, pid, at, time.monotonic(), ends))
        if fault.is_waited_for:
            await recovery
        else:
            self._recoveries.add(recovery)
            recovery.add_done_callback(self._recoveries.discard)

    async def _recovered(self, part: str, pid: int, at: float, killed: float, ends: Mapping[Place, int]) -> None:
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                while self.platform.pid(part) == pid or not self.platform.is_ready(part):  # noqa: ASYNC110  # as above
                    await asyncio.sleep(POLL_SECONDS)
                ready_seconds = time.monotonic() - killed
                await self.recovery.caught_up(part, ends)
                caught_up_seconds = time.monotonic() - killed
        except TimeoutError:
            raise NotRecovered(f"{part} was killed and is not back after {RECOVERY_SECONDS:.0f} s") from None
        await self.ledger.fault(Fault("kill", part, at, "", ready_seconds, caught_up_seconds))

    async def _stopped(self, fault: Planned) -> None:
        pid = self.platform.pid(fault.part)
        disk.send(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            disk.send(pid, signal.SIGCONT)

    async def _full(self, fault: Planned) -> None:
        """The disk is full. The edge's is said to be until its journal has been written again."""
        self.is_edge_full |= fault.part == "edge"
        with disk.full(self.platform.pid(fault.part)):
            await asyncio.sleep(fault.seconds)
        if fault.part == "edge":
            await self.platform.edge_ready(RECOVERY_SECONDS)
            self.is_edge_full = False

    async def _slow(self, fault: Planned) -> None:
        """A slow network before a part; before "disk": Postgres runs a fifth of the time."""
        if fault.part == "disk":
            await disk.slow(self.platform.pid("postgres"), fault.seconds)
            return
        proxy = self.platform.proxies[fault.part]
        proxy.delay_seconds = 0.05
        await asyncio.sleep(fault.seconds)
        proxy.heal()


class NotRecovered(Exception):
    """A part did not come back."""
