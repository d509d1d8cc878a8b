"""Keeps every part running. Invariant: what dies alone is restarted alone, and a person is told.

Order of a start: 1. servers, and the process that our own are forked from, at once; 2. topics and migrations, each as soon
as its server is ready; 3. our processes. Order of a stop: doors, readers and writers of the log, stores (parts.STOP_ORDER).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from signal import Signals

from infra.embedded.errors import CannotStart
from infra.embedded.server import Launch, Server, last_words
from infra.supervisor.children import Child, Spawned, Zygote, end
from infra.supervisor.display import Display
from infra.supervisor.leftovers import MARK, PART, end_leftovers
from infra.supervisor.parts import PRELOAD, STOP_ORDER, Job, Plan, Process
from infra.supervisor.status import PartStatus, Phase

START_SECONDS = 180.0  # beyond this a part that never became ready has failed
PROBE_SECONDS = 0.03
BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.2, 30.0
SETTLED_SECONDS = 30.0  # ready for so long: the next failure is a new one, not a continued one
ATTEMPTS = 3  # of a start, before it is given up; restarts of what once was ready are never given up
PATIENCE_SECONDS = 15.0


class Supervisor:
    """One run of the platform: start(), then watch() until told to stop(), which may come at any moment."""

    def __init__(self, plan: Plan, parts: dict[str, PartStatus], display: Display, changed: Callable[[], None]) -> None:
        self._plan, self._parts, self._display, self._changed = plan, parts, display, changed
        self._children: dict[str, tuple[Child, tuple[Signals, ...]]] = {}
        self._once_ready = {name: asyncio.Event() for name in parts}
        self._keepers: list[asyncio.Task[None]] = []
        self._zygote = Zygote(
            [
                *dict.fromkeys(
                    [
                        *(PRELOAD if plan.processes else ()),
                        *(job.module for job in plan.jobs),
                        *(process.module for process in plan.processes),
                    ]
                )
            ],
            {**plan.env, PART: "zygote"},
            plan.directory.log("zygote"),
        )
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="probe")

    async def start(self) -> None:
        """Returns when every part is ready. Raises CannotStart; the caller then stops what did start."""
        self._keepers.append(asyncio.create_task(self._zygote.start()))
        jobs = [asyncio.create_task(self._run_job(job)) for job in self._plan.jobs]
        servers = [asyncio.create_task(self._keep_server(server)) for server in self._plan.servers]
        processes = [asyncio.create_task(self._keep_process(process)) for process in self._plan.processes]
        self._keepers += [*jobs, *servers, *processes]
        ready = asyncio.create_task(self._all_ready())
        while not ready.done():
            watched = {ready, *(task for task in self._keepers if not task.done())}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in self._keepers:
                if task.done() and not task.cancelled() and (error := task.exception()):
                    ready.cancel()
                    raise error

    async def watch(self) -> None:
        """Until cancelled; the keepers do the work. Raises what a keeper could not handle."""
        await asyncio.gather(*self._keepers)
        await asyncio.Event().wait()  # everything runs elsewhere: there is nothing to keep

    async def stop(self) -> None:
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for group in STOP_ORDER:
            # a job that was interrupted and everything unforeseen goes with the first group
            known = {prefix for g in STOP_ORDER for prefix in g}
            chosen = [
                name
                for name in self._children
                if (prefix := name.split("-")[0]) in group or (prefix not in known and group is STOP_ORDER[0])
            ]
            await asyncio.gather(*(self._end(name) for name in chosen))
        await self._zygote.stop()
        # a fork that was ordered but whose pid we were not told any more
        await asyncio.to_thread(end_leftovers, self._plan.directory.root, lambda _: None)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def hurry(self) -> None:
        """Ends everything at once: the second Ctrl-C."""
        for child, _ in self._children.values():
            try:
                os.kill(child.pid, Signals.SIGKILL)
            except ProcessLookupError:
                continue

    async def _all_ready(self) -> None:
        for event in self._once_ready.values():
            await event.wait()

    async def _end(self, name: str) -> None:
        child, signals = self._children[name]
        if await end(child, signals, PATIENCE_SECONDS) == -Signals.SIGKILL:
            self._display.say(f"{name} (pid {child.pid}) did not stop when told to; it was killed")
        self._children.pop(name, None)
        part = self._parts[name]
        part.finished(Phase.STOPPED)
        self._display.changed(part)

    async def _needs(self, after: tuple[str, ...]) -> None:
        for name in after:
            if name in self._once_ready:
                await self._once_ready[name].wait()

    async def _run_job(self, job: Job) -> None:
        part = self._parts[job.name]
        log = self._plan.directory.log(job.name)
        await self._needs(job.after)
        part.starting()
        child = await self._zygote.fork(job.module, job.args, {**job.env, PART: job.name}, log, f"fw-{job.name}")
        part.started(child.pid)
        self._children[job.name] = (child, (Signals.SIGTERM,))
        code = await child.wait()
        del self._children[job.name]
        if code != 0:
            raise CannotStart(f"{job.name}: {' '.join((job.module, *job.args))} {ended_how(code)}; {last_words(log)}")
        self._is_ready(part, Phase.DONE)

    async def _keep_server(self, server: Server) -> None:
        log = self._plan.directory.log(server.name)
        loop = asyncio.get_running_loop()

        async def launch() -> Child:
            prepared = await loop.run_in_executor(self._pool, server.prepare, log)
            env = {**prepared.env, MARK: self._plan.env[MARK], PART: server.name}
            return Spawned(Launch(prepared.argv, env, prepared.cwd, prepared.user, prepared.group), log)

        await self._keep(server.name, launch, server.ready, server.stop_signals, attempts=2)

    async def _keep_process(self, process: Process) -> None:
        log = self._plan.directory.log(process.name)
        await self._needs(process.after)

        async def launch() -> Child:
            return await self._zygote.fork(
                process.module, process.args, {**process.env, PART: process.name}, log, f"fw-{process.name}", process.listen
            )

        await self._keep(process.name, launch, lambda _: process.ready(), process.stop_signals, attempts=ATTEMPTS)

    async def _keep(
        self,
        name: str,
        launch: Callable[[], Awaitable[Child]],
        ready: Callable[[int], bool],
        signals: tuple[Signals, ...],
        attempts: int,
    ) -> None:
        """Launches the part, waits for its end, launches it again, for ever; raises CannotStart if it never got ready."""
        part, failures = self._parts[name], 0
        log = self._plan.directory.log(name)
        while True:
            part.starting()
            self._display.changed(part)
            began = time.monotonic()
            what = await self._live(part, launch, ready, signals)
            failures = 1 if time.monotonic() - began > SETTLED_SECONDS else failures + 1
            if failures >= attempts and not self._once_ready[name].is_set():
                raise CannotStart(f"{name} {what}: {last_words(log)}")
            pause_seconds = min(BACKOFF_FIRST_SECONDS * 2 ** (failures - 1), BACKOFF_MAX_SECONDS)
            part.phase, part.note, part.restarts = (
                Phase.RESTARTING,
                f"{what}, restarting in {pause_seconds:.1f} s",
                part.restarts + 1,
            )
            self._display.say(f"{name} (pid {part.pid}) {what}; restarting it in {pause_seconds:.1f} s. Its log: {log}")
            self._changed()
            await asyncio.sleep(pause_seconds)

    async def _live(
        self, part: PartStatus, launch: Callable[[], Awaitable[Child]], ready: Callable[[int], bool], signals: tuple[Signals, ...]
    ) -> str:
        """One life of the part; how it ended. Raises CannotStart or OSError if it cannot even begin its first one."""
        name = part.name
        try:
            child = await launch()
        except (CannotStart, OSError) as problem:
            if self._once_ready[name].is_set():
                return f"could not be started ({problem})"
            raise
        self._children[name] = (child, signals)
        part.started(child.pid)
        self._changed()
        waiting = asyncio.ensure_future(child.wait())
        if await self._until_ready(child, waiting, ready):
            self._is_ready(part, Phase.READY)
            what = ended_how(await waiting)
        else:
            what = ended_how(await end(child, signals, PATIENCE_SECONDS)) + " before it was ready"
        del self._children[name]
        return what

    async def _until_ready(self, child: Child, waiting: asyncio.Future[int | None], ready: Callable[[int], bool]) -> bool:
        """False: it ended first, or took too long (and still runs)."""
        loop, end_at = asyncio.get_running_loop(), time.monotonic() + START_SECONDS
        while time.monotonic() < end_at:
            if await loop.run_in_executor(self._pool, ready, child.pid) and not waiting.done():
                return True
            done, _ = await asyncio.wait([waiting], timeout=PROBE_SECONDS)
            if done:
                return False
        return False

    def _is_ready(self, part: PartStatus, phase: Phase) -> None:
        again = self._once_ready[part.name].is_set()
        part.finished(phase)
        self._once_ready[part.name].set()
        if again:
            self._display.say(f"{part.name} is ready again after {part.ready_seconds:.1f} s (pid {part.pid})")
        else:
            self._display.changed(part)
        self._changed()


def ended_how(code: int | None) -> str:
    if code is None:
        return "ended"
    if code < 0:
        return f"was ended by {Signals(-code).name}"
    return f"ended with exit code {code}"
