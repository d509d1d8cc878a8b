"""What is missing for a node to work: each thing that can be wrong is looked at by itself, and said with what to do about it.

Nothing here changes anything, and nothing needs the agent to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from edge_agent.mist.link import former_urls
from edge_agent.mist.plan import Step, plan, problems
from edge_agent.mist.server import TESTED, Reader, Server
from edge_agent.mist.settings import MistSettings, alone
from edge_agent.settings import EdgeSettings, read_edge_settings
from streams.errors import Rejected, Transient
from streams.settings import SettingsError

CONNECT_SECONDS: Final = 3.0
CLOCK_SECONDS: Final = 2
PROXIES: Final = (b"http_proxy", b"HTTP_PROXY")
CONTROLLER: Final = "MistController"
PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Finding:
    """`problem` says what is wrong and what to do; where nothing is, `detail` says what was found."""

    what: str
    problem: str | None = None
    detail: str = "as it shall be"


async def read_plan(settings: MistSettings, journal: Path) -> tuple[Server, list[Step], list[str]]:
    """Which server it is, the steps that are missing, and what no step can mend. Raises Transient, Rejected."""
    desired = settings.desired(former_urls(known(journal)))
    async with settings.api() as api:
        server, observed = await Reader(api).read()
    return server, plan(desired, observed), problems(desired, observed)


async def diagnose(env: Mapping[str, str]) -> list[Finding]:
    """Everything, in the order in which it depends on each other."""
    findings: list[Finding] = []
    settings: EdgeSettings | None = None
    mist: MistSettings | None = None
    journal = Path("journal.db")
    try:
        settings = read_edge_settings(env)
        mist, journal = settings.mist, settings.state_dir / "journal.db"
        findings.append(Finding("settings", detail=f"node {settings.node_id}"))
    except SettingsError as error:
        findings += [Finding("settings", line) for line in str(error).splitlines()]
        with contextlib.suppress(SettingsError):
            mist, journal = alone(env)
    if mist:
        findings += [finding async for finding in _media_server(mist, journal)]
    elif settings:
        advice = "set --mist-api to http://127.0.0.1:4242, or every trigger by hand"
        findings.append(
            Finding("media server", f"no API is configured, so nothing is set up and nothing lost is found: {advice}")
        )
    if settings:
        findings += [_journal(settings), _policy(settings), await _uplink(settings)]
    return findings


async def _media_server(settings: MistSettings, journal: Path) -> AsyncIterator[Finding]:
    yield await _trigger_url(settings)
    yield _proxies()
    desired = settings.desired(former_urls(known(journal)))
    try:
        async with settings.api() as api:
            server, observed = await Reader(api).read()
    except Rejected as refusal:
        yield Finding("login", refusal.message)
        return
    except Transient as error:
        advice = "start MistServer, or correct --mist-api"
        yield Finding("API", f"{error}: {advice}")
        return
    yield Finding("API", detail=f"{settings.api_url}, instance {server.instance}")
    kind = "the fork" if server.is_fork else "stock"
    unknown = f"MistServer {server.version} ({kind}) was never tried, {TESTED} was: watch for TriggerInvalid facts"
    yield Finding("version", None if server.is_known_version else unknown, f"{server.version}, {kind}")
    steps = plan(desired, observed)
    missing = ", ".join(step.name for step in steps)
    advice = "`fw edge run` does them, `fw edge plan` says each in a sentence"
    yield Finding("set-up", f"{len(steps)} steps are missing ({missing}): {advice}" if steps else None)
    for problem in problems(desired, observed):
        yield Finding("set-up", problem)
    behind = observed.config.time - round(time.time())
    yield Finding(
        "clock",
        f"the media server's clock is {behind:+} s from ours: keep both in time (chrony, systemd-timesyncd)"
        if observed.config.time and abs(behind) > CLOCK_SECONDS
        else None,
    )


async def _trigger_url(settings: MistSettings) -> Finding:
    """From here, which is where MistServer stands, too, mostly."""
    url = settings.trigger_url
    try:
        async with httpx.AsyncClient(timeout=CONNECT_SECONDS, trust_env=False) as http:
            answer = await http.get(f"{url}/healthz")
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        return Finding(
            "trigger URL", f"{url} is not reachable from here ({reason}): is `fw edge run` running, and does it listen there?"
        )
    if answer.status_code != 200 or answer.text.strip() != "ok":
        return Finding("trigger URL", f"something that is no edge agent answers at {url}: give the agent a port of its own")
    return Finding("trigger URL", detail=url)


def _proxies() -> Finding:
    """MistServer heeds http_proxy for triggers (CONTRACT section 2)."""
    found = [name.decode() for name in PROXIES if os.environ.get(name.decode())]
    readable = False
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == CONTROLLER[:15]:
                environ = (process / "environ").read_bytes().split(b"\0")
                readable = True
                if any(entry.startswith(tuple(name + b"=" for name in PROXIES)) for entry in environ):
                    return Finding(
                        "proxy", "MistServer runs with http_proxy set and sends triggers there: unset it and restart it"
                    )
    if found and not readable:
        return Finding("proxy", f"{found[0]} is set here; if MistServer has it, too, it sends triggers there: unset it for both")
    return Finding("proxy", detail="none")


def _journal(settings: EdgeSettings) -> Finding:
    file = settings.state_dir / "journal.db"
    if not file.exists():
        return Finding("journal", f"{file} is not there: the agent never ran with this --state-dir")
    try:
        with _opened(file) as connection:
            [(rows, oldest_ms)] = connection.execute("SELECT count(*), min(at_ms) FROM journal")
            [(quarantined,)] = connection.execute("SELECT count(*) FROM quarantine")
    except sqlite3.Error as error:
        return Finding("journal", f"{file} cannot be read ({error}): is it the agent's, and is its disk well?")
    if not os.access(file, os.W_OK):
        return Finding("journal", f"{file} cannot be written by this user; the agent may be another")
    if quarantined:
        return Finding(
            "journal", f"the platform refused {quarantined} facts; they are kept with the reason: `fw edge journal list`"
        )
    age = f", the oldest {round(time.time() - oldest_ms / 1000)} s old" if rows else ""
    return Finding("journal", detail=f"{rows} facts wait for the platform{age}")


def _policy(settings: EdgeSettings) -> Finding:
    file = settings.state_dir / "journal.db"
    if "policy_is_known" not in known(file):
        return Finding("policy", "none was ever received, so every publisher is refused: connect the node to the platform once")
    with _opened(file) as connection:
        [(records,)] = connection.execute("SELECT count(*) FROM policy")
    return Finding("policy", detail=f"{records} records")


async def _uplink(settings: EdgeSettings) -> Finding:
    host, _, port = settings.ingress.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        advice = "facts are kept until it is reachable; check FW_EDGE_INGRESS, the firewall, and `fw status` at the platform"
        return Finding("uplink", f"the ingress at {settings.ingress} is not reachable ({reason}): {advice}")
    writer.close()
    return Finding("uplink", detail=f"the ingress at {settings.ingress} answers")


def known(journal: Path) -> dict[str, str]:
    """What a journal remembers; nothing where there is none."""
    if not journal.exists():
        return {}
    try:
        with _opened(journal) as connection:
            return dict(connection.execute("SELECT name, value FROM known"))
    except sqlite3.Error:
        return {}


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=CONNECT_SECONDS)
    try:
        yield connection
    finally:
        connection.close()
