"""Where everything of one installation listens and keeps its files. Invariant: a port is named once, here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """The port map; `base` shifts every port by a constant."""

    base: int = 0

    @property
    def gateway(self) -> int:
        return self.base + 18000

    @property
    def balancer(self) -> int:
        return self.base + 18008

    @property
    def ingress(self) -> int:
        return self.base + 18006

    @property
    def ingress_tls(self) -> int:
        """Where nodes with certificates connect."""
        return self.base + 18016

    @property
    def ingress_metrics(self) -> int:
        return self.base + 18026

    @property
    def edge(self) -> int:
        return self.base + 18007

    @property
    def kafka(self) -> int:
        return self.base + 29092

    @property
    def kafka_controller(self) -> int:
        return self.base + 29093

    @property
    def postgres(self) -> int:
        return self.base + 5432

    @property
    def clickhouse(self) -> int:
        return self.base + 8123

    @property
    def commands_metrics(self) -> int:
        return self.base + 18040

    @property
    def reactors_metrics(self) -> int:
        return self.base + 18039

    @property
    def policy_metrics(self) -> int:
        return self.base + 18037

    @property
    def archive_metrics(self) -> int:
        return self.base + 18038

    def projection_metrics(self, number: int) -> int:
        """Of the projection with this place in PROJECTIONS, from 0."""
        return self.base + 18041 + number


@dataclass(frozen=True, slots=True)
class Directory:
    """The data directory: everything that one installation keeps."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def stack(self) -> Path:
        """Addresses and processes of the running stack; there only while it runs, mode 0600."""
        return self.root / "stack.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    @property
    def edge(self) -> Path:
        return self.root / "edge"

    @property
    def edge_credential(self) -> Path:
        return self.edge / "credential"
