"""What the operator says about the media server: where its API is, and how it shall be set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_agent.config_file import variables
from edge_agent.mist.api import MistApi
from edge_agent.mist.plan import Desired, url_problem
from streams.settings import Listen, Reader, SettingsError

_ANY: Final = ("0.0.0.0", "::", "[::]")  # listening everywhere: from this machine we are reached at loopback
WHEN_DOWN: Final = ("open", "closed")


@dataclass(frozen=True, slots=True)
class MistSettings:
    api_url: str
    trigger_url: str  # where the media server reaches us, without a path
    username: str = ""
    password_file: Path | None = None
    counts_private: bool = False
    prometheus: str = "metrics"
    viewers_when_down: str = "open"

    def api(self) -> MistApi:
        return MistApi(self.api_url, self.username, self._password)

    def desired(self, former_urls: tuple[str, ...] = ()) -> Desired:
        return Desired(
            trigger_url=self.trigger_url,
            counts_private=self.counts_private,
            prometheus=self.prometheus,
            viewers_when_down=self.viewers_when_down,
            former_urls=tuple(url for url in former_urls if url != self.trigger_url),
        )

    def _password(self) -> str:
        return self.password_file.read_text(encoding="utf-8").rstrip("\r\n") if self.password_file else ""


def read_mist_settings(reader: Reader, listen: Listen) -> MistSettings | None:
    """None: no API is configured. What is wrong is noted in the reader."""
    env, problems = reader.env, reader.problems
    api_url = env.get("FW_EDGE_MIST_API", "")
    username, password_file = env.get("FW_EDGE_MIST_USER", ""), reader.path("FW_EDGE_MIST_PASSWORD_FILE")
    trigger_url = env.get("FW_EDGE_TRIGGER_URL") or f"http://{'127.0.0.1' if listen.host in _ANY else listen.host}:{listen.port}"
    counts_private, prometheus = env.get("FW_EDGE_COUNT_PRIVATE", "0"), env.get("FW_EDGE_MIST_PROMETHEUS", "metrics")
    when_down = env.get("FW_EDGE_VIEWERS_WHEN_DOWN", "open")
    if not api_url:
        if username or password_file:
            problems.append(
                "FW_EDGE_MIST_USER and FW_EDGE_MIST_PASSWORD_FILE need FW_EDGE_MIST_API, http://127.0.0.1:4242 mostly"
            )
        return None
    if not _is_base(api_url):
        problems.append(f"FW_EDGE_MIST_API must look like http://127.0.0.1:4242, not {api_url!r}")
    if not _is_base(trigger_url) or not trigger_url.startswith("http://"):
        problems.append(f"FW_EDGE_TRIGGER_URL must look like http://127.0.0.1:18007, not {trigger_url!r}")
    elif too_long := url_problem(trigger_url):
        problems.append(f"FW_EDGE_TRIGGER_URL: {too_long}")
    if bool(username) != bool(env.get("FW_EDGE_MIST_PASSWORD_FILE")):
        problems.append("FW_EDGE_MIST_USER and FW_EDGE_MIST_PASSWORD_FILE go together: a login has both")
    if counts_private not in ("0", "1"):
        problems.append(f"FW_EDGE_COUNT_PRIVATE must be 0 or 1, not {counts_private!r}")
    if when_down not in WHEN_DOWN:
        problems.append(f"FW_EDGE_VIEWERS_WHEN_DOWN must be open or closed, not {when_down!r}")
    if not prometheus.replace("-", "").replace("_", "").isalnum():
        problems.append(f"FW_EDGE_MIST_PROMETHEUS must be letters, digits, - and _, not {prometheus!r}")
    trigger_url = trigger_url.rstrip("/")
    return MistSettings(api_url, trigger_url, username, password_file, counts_private == "1", prometheus, when_down)


def alone(env: Mapping[str, str]) -> tuple[MistSettings, Path]:
    """The media server's settings without those of the node, and where its journal is. Raises SettingsError."""
    found = variables(env)
    reader = Reader(found, {})
    listen = reader.listen("FW_EDGE_LISTEN", "127.0.0.1:18007")
    mist = read_mist_settings(reader, listen)
    journal = Path(found.get("FW_EDGE_STATE_DIR") or Path(found.get("FW_DATA_DIR", "data")) / "edge") / "journal.db"
    if mist is None and not reader.problems:
        reader.problems.append("FW_EDGE_MIST_API is not set: give --mist-api, http://127.0.0.1:4242 mostly")
    if problems := [*found.problems, *reader.problems]:
        raise SettingsError("\n".join(problems))
    assert mist is not None  # or there was a problem
    return mist, journal


def _is_base(url: str) -> bool:
    """Scheme, host and port, and nothing else."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.path in ("", "/")
            and not (parts.query or parts.username)
            and parts.port != 0
        )
    except ValueError:
        return False
