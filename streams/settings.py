"""Settings: read once in main(), all problems reported together, frozen afterwards.

A URL that is not set means the embedded stack: it is taken from `stack.json`, which `fw up` keeps in the data directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from streams.topics import Topics


class SettingsError(Exception):
    """Every problem of the environment, one line each."""


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What every process of the platform knows of its surroundings."""

    data_dir: Path
    kafka: str  # host:port[,host:port…]
    postgres_url: str  # postgresql://user:password@host:port/database
    clickhouse_url: str  # http://user:password@host:port/database
    topics: Topics
    secret_key: bytes  # master secret: derives stream keys, signs node credentials
    operator_token: str
    kafka_session_seconds: int  # how long a dead worker's partitions stay its own
    metrics_port: int  # 0: none
    log_level: str
    otel_endpoint: str | None  # None: no tracing
    gateway: Listen
    ingress: Listen
    geoip_database: Path | None
    replication_factor: int = 1  # copies of every partition: 1 embedded, 3 in a cluster
    metrics_host: str = "127.0.0.1"  # address that /metrics listens on
    group_instance: str | None = None  # a name that this process keeps over restarts, and no other of its kind has
    archive_url: str = "data/archive"  # folder, or s3://, gs://, az:// URL: where closed ranges of the log are kept
    archive_range_seconds: int = 3600  # a range is closed when its oldest record is so old,
    archive_range_mib: int = 64  # or when it is about so large
    master_key_file: Path | None = None  # None: `master.key` in the data directory
    master_key_command: str | None = None  # prints the master key; before the file
    privacy_days: int = 30  # how long the keys of a day's personal data live
    allows_private_pushes: bool = False  # push targets may be in a private network
    authority: tuple[Path, Path] | None = None  # certificate and key of the authority of nodes; None: nodes cannot be enrolled
    ingress_tls: Listen = Listen("127.0.0.1", 18016)  # where enrolled nodes connect
    ingress_public: str = "127.0.0.1:18016"  # the same as nodes reach it
    certificate_seconds: int = 86_400  # how long a node's certificate is good
    balancer: Listen | None = None  # MistServer's balancer protocol; None: not served
    balancer_fallback: str = "FULL"  # what it answers where no node can serve
    cpu_ceiling_percent: int = 90  # nobody new is sent to a node that uses more,
    ram_ceiling_percent: int = 90
    bandwidth_ceiling_percent: int = 95
    node_stale_seconds: int = 45  # or that has said nothing for so long
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # whose X-Forwarded-For is believed


class Reader:
    """Reads variables and remembers what was wrong with them."""

    def __init__(self, env: Mapping[str, str], stack: Mapping[str, object]) -> None:
        self.env, self.stack, self.problems = env, stack, list[str]()

    def text(self, name: str, stack_key: str | None = None, default: str | None = None) -> str:
        """Variable, else what `fw up` wrote, else the default."""
        value = self.env.get(name) or self.stack.get(stack_key or "") or default
        if value is None:
            self.problems.append(f"{name} is not set, and no embedded stack runs here: start `fw up`, or set it")
            return ""
        return str(value)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        value = self.env.get(name, str(default))
        if not value.isdecimal() or not low <= int(value) <= high:
            self.problems.append(f"{name} must be a number from {low} to {high}, not {value!r}")
            return default
        return int(value)

    def is_set(self, name: str) -> bool:
        """Whether a switch is on; not set means off."""
        value = self.env.get(name, "0")
        if value not in ("0", "1"):
            self.problems.append(f"{name} must be 0 or 1, not {value!r}")
        return value == "1"

    def listen(self, name: str, default: str) -> Listen:
        value = self.env.get(name, default)
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            self.problems.append(f"{name} must be host:port, not {value!r}")
            return Listen("127.0.0.1", 0)
        return Listen(host, int(port))

    def networks(self, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
        """Addresses and networks, separated by commas."""
        found = []
        for text in filter(None, map(str.strip, self.env.get(name, "").split(","))):
            try:
                found.append(ip_network(text))
            except ValueError:
                self.problems.append(f"{name} must be networks like 10.0.0.0/8, separated by commas, not {text!r}")
        return tuple(found)

    def url(self, name: str, stack_key: str, schemes: tuple[str, ...]) -> str:
        value = self.text(name, stack_key)
        if value and urlsplit(value).scheme not in schemes:
            self.problems.append(f"{name} must begin with {' or '.join(s + '://' for s in schemes)}")
        return value

    def hex_secret(self, name: str, stack_key: str) -> bytes:
        value = self.text(name, stack_key)
        try:
            secret = bytes.fromhex(value)
        except ValueError:
            secret = b""
        if value and len(secret) < 32:
            self.problems.append(f"{name} must be at least 64 hexadecimal digits")
        return secret

    def path(self, name: str) -> Path | None:
        value = self.env.get(name)
        if value and not Path(value).is_file():
            self.problems.append(f"{name}: there is no file {value}")
        return Path(value) if value else None


def stack_file(data_dir: Path) -> Mapping[str, object]:
    """What `fw up` last wrote about the stack in this directory; empty when none runs there."""
    try:
        found: Mapping[str, object] = json.loads((data_dir / "stack.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (PermissionError, ValueError) as error:
        raise SettingsError(f"cannot read {data_dir / 'stack.json'}: {error}") from None
    return found


def read_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment. Raises SettingsError that names every problem at once."""
    env = os.environ if env is None else env
    data_dir = Path(env.get("FW_DATA_DIR", "data"))
    reader = Reader(env, stack_file(data_dir))
    level = env.get("FW_LOG_LEVEL", "info").lower()
    if level not in ("debug", "info", "warning", "error"):
        reader.problems.append(f"FW_LOG_LEVEL must be debug, info, warning or error, not {level!r}")
    ingress_tls = reader.listen("FW_INGRESS_TLS_LISTEN", "127.0.0.1:18016")
    settings = Settings(
        data_dir=data_dir,
        kafka=reader.text("FW_KAFKA_BOOTSTRAP", "kafka"),
        replication_factor=reader.number("FW_KAFKA_REPLICATION_FACTOR", 1, 1, 7),
        postgres_url=reader.url("FW_POSTGRES_URL", "postgres", ("postgresql",)),
        clickhouse_url=reader.url("FW_CLICKHOUSE_URL", "clickhouse", ("http", "https")),
        topics=Topics(env.get("FW_TOPIC_PREFIX", "")),
        secret_key=reader.hex_secret("FW_SECRET_KEY", "secret_key"),
        operator_token=reader.text("FW_OPERATOR_TOKEN", "operator_token"),
        metrics_host=env.get("FW_METRICS_HOST", "127.0.0.1"),
        group_instance=env.get("FW_GROUP_INSTANCE") or None,
        kafka_session_seconds=reader.number("FW_KAFKA_SESSION_SECONDS", 6, 1, 300),
        metrics_port=reader.number("FW_METRICS_PORT", 0, 0, 65535),
        log_level=level,
        otel_endpoint=env.get("FW_OTEL_ENDPOINT") or None,
        gateway=reader.listen("FW_GATEWAY_LISTEN", "127.0.0.1:18000"),
        ingress=reader.listen("FW_INGRESS_LISTEN", "127.0.0.1:18006"),
        geoip_database=reader.path("FW_GEOIP_DB"),
        archive_url=reader.text("FW_ARCHIVE_URL", "archive", str(data_dir.resolve() / "archive")),
        archive_range_seconds=reader.number("FW_ARCHIVE_RANGE_SECONDS", 3600, 1, 7 * 24 * 3600),
        archive_range_mib=reader.number("FW_ARCHIVE_RANGE_MIB", 64, 1, 1024),
        master_key_file=reader.path("FW_MASTER_KEY_FILE"),
        master_key_command=env.get("FW_MASTER_KEY_COMMAND") or None,
        privacy_days=reader.number("FW_PRIVACY_DAYS", 30, 0, 3650),
        allows_private_pushes=reader.is_set("FW_PRIVATE_PUSH_TARGETS"),
        authority=_authority(reader, data_dir),
        ingress_tls=ingress_tls,
        ingress_public=env.get("FW_INGRESS_PUBLIC") or str(ingress_tls),
        certificate_seconds=reader.number("FW_CERTIFICATE_SECONDS", 86_400, 1, 30 * 86_400),
        balancer=reader.listen("FW_BALANCER_LISTEN", "") if env.get("FW_BALANCER_LISTEN") else None,
        balancer_fallback=env.get("FW_BALANCER_FALLBACK") or "FULL",
        cpu_ceiling_percent=reader.number("FW_BALANCER_CPU_CEILING_PERCENT", 90, 1, 100),
        ram_ceiling_percent=reader.number("FW_BALANCER_RAM_CEILING_PERCENT", 90, 1, 100),
        bandwidth_ceiling_percent=reader.number("FW_BALANCER_BANDWIDTH_CEILING_PERCENT", 95, 1, 100),
        node_stale_seconds=reader.number("FW_BALANCER_STALE_SECONDS", 45, 1, 3600),
        trusted_proxies=reader.networks("FW_TRUSTED_PROXIES"),
    )
    if reader.problems:
        raise SettingsError("\n".join(reader.problems))
    return settings


def _authority(reader: Reader, data_dir: Path) -> tuple[Path, Path] | None:
    """What FW_CA_CERT and FW_CA_KEY name; else what `fw up` made in the data directory; else nothing."""
    certificate, key = reader.path("FW_CA_CERT"), reader.path("FW_CA_KEY")
    if (certificate is None) != (key is None):
        reader.problems.append("FW_CA_CERT and FW_CA_KEY belong together: set both, or neither")
    if certificate is not None and key is not None:
        return certificate, key
    made = authority_files(data_dir)
    return made if all(file.is_file() for file in made) else None


def authority_files(data_dir: Path) -> tuple[Path, Path]:
    """Where the authority of an installation on one machine is kept."""
    return data_dir / "authority.crt", data_dir / "authority.key"
