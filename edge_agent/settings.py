"""Settings of an edge agent: read once in main(), all problems reported together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from edge_agent.config_file import variables
from edge_agent.decision_settings import DecisionSettings, read_decision_settings
from edge_agent.identity import Identity, load
from edge_agent.journal import BUDGET_BYTES
from edge_agent.mist.settings import MistSettings, read_mist_settings
from edge_agent.personal import KEY_SECONDS
from edge_agent.task_settings import TaskSettings, read_task_settings
from streams.ingress.credentials import read
from streams.settings import Listen, Reader, SettingsError

SMALLEST_JOURNAL_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What an agent knows of its surroundings. It needs neither Kafka nor a database."""

    node_id: str
    own_tenant: UUID  # of what the node says about itself
    listen: Listen
    ingress: str  # host:port
    state_dir: Path
    credential_file: Path
    geoip_database: Path | None
    log_level: str
    otel_endpoint: str | None
    key_seconds: int = KEY_SECONDS  # how long a data key seals before another is made
    journal_bytes: int = BUDGET_BYTES  # of facts that wait for the platform; beyond it samples are given up
    mist: MistSettings | None = None  # the media server's API; None: triggers alone are heard
    decisions: DecisionSettings = field(default_factory=DecisionSettings)
    tasks: TaskSettings = field(default_factory=TaskSettings)


def read_edge_settings(env: Mapping[str, str] | None = None) -> EdgeSettings:
    """Settings from the environment and the file that FW_EDGE_CONFIG names. Raises SettingsError with every problem at once."""
    env = variables(env)
    reader = Reader(env, {})
    data_dir = Path(env.get("FW_DATA_DIR", "data"))
    level = env.get("FW_LOG_LEVEL", "info").lower()
    if level not in ("debug", "info", "warning", "error"):
        reader.problems.append(f"FW_LOG_LEVEL must be debug, info, warning or error, not {level!r}")
    state_dir = Path(env.get("FW_EDGE_STATE_DIR") or data_dir / "edge")
    credential_file = Path(env.get("FW_EDGE_CREDENTIAL_FILE") or state_dir / "credential")
    listen = reader.listen("FW_EDGE_LISTEN", "127.0.0.1:18007")
    enrolled = _enrolled(state_dir, reader.problems)
    ingress = reader.listen("FW_EDGE_INGRESS", enrolled.ingress if enrolled else "127.0.0.1:18006")
    geoip = reader.path("FW_GEOIP_DB")
    key_seconds = reader.number("FW_EDGE_KEY_SECONDS", KEY_SECONDS, 1, 86_400)
    journal_bytes = reader.number("FW_EDGE_JOURNAL_BYTES", BUDGET_BYTES, SMALLEST_JOURNAL_BYTES, 1 << 50)
    node_id, tenant = _identity(env.get("FW_EDGE_NODE_ID", ""), credential_file, enrolled, reader.problems)
    mist, decisions, tasks = read_mist_settings(reader, listen), read_decision_settings(reader), read_task_settings(reader)
    otel = env.get("FW_OTEL_ENDPOINT") or None
    if problems := [*env.problems, *reader.problems, *env.unasked()]:
        raise SettingsError("\n".join(problems))
    return EdgeSettings(
        node_id,
        tenant,
        listen,
        str(ingress),
        state_dir,
        credential_file,
        geoip,
        level,
        otel,
        key_seconds,
        journal_bytes,
        mist,
        decisions,
        tasks,
    )


def _enrolled(state_dir: Path, problems: list[str]) -> Identity | None:
    """What the platform gave this node when it was enrolled."""
    try:
        return load(state_dir)
    except (OSError, ValueError) as error:
        problems.append(f"FW_EDGE_STATE_DIR: {error}")
        return None


def _identity(node_id: str, file: Path, enrolled: Identity | None, problems: list[str]) -> tuple[str, UUID]:
    """Who this node is: its certificate or its credential says so, and a name that is set must agree with it."""
    if enrolled is not None:
        if node_id and node_id != enrolled.node_id:
            problems.append(f"FW_EDGE_NODE_ID is {node_id!r}, but this node was enrolled as {enrolled.node_id!r}: leave it out")
        return enrolled.node_id, enrolled.tenant_id
    try:
        credential = read(file.read_text(encoding="utf-8").strip())
    except OSError as error:
        advice = "enrol this node (`fw edge enroll --help`), or make one with `fw node credential --node-id NAME -o FILE`"
        problems.append(f"FW_EDGE_CREDENTIAL_FILE: cannot read {file}: {error.strerror}; {advice}")
        return node_id, UUID(int=0)
    except ValueError as error:
        problems.append(f"FW_EDGE_CREDENTIAL_FILE: {file}: {error}")
        return node_id, UUID(int=0)
    if node_id and node_id != credential.node_id:
        problems.append(f"FW_EDGE_NODE_ID is {node_id!r}, but the credential in {file} is of node {credential.node_id!r}")
    return credential.node_id, credential.own_tenant
