"""What the operator says about the node's decisions: for how long the policy counts, and whom there is to ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from edge_agent.policy import VALIDITY_SECONDS
from streams.playback.tokens import is_network
from streams.settings import Reader

LONGEST_SECONDS: Final = 10 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    policy_validity_seconds: int = VALIDITY_SECONDS  # without a word of the platform, what is known counts for so long
    balancer_url: str | None = None  # http://host:port; None: streams of other nodes are not fetched
    peer_networks: tuple[str, ...] = ()  # where other nodes are, that fetch streams from here
    allows_private_webhooks: bool = False  # tenants' servers may be in a private network, and speak plain HTTP


def read_decision_settings(reader: Reader) -> DecisionSettings:
    """What is wrong is noted in the reader."""
    env, problems = reader.env, reader.problems
    networks = tuple(filter(None, map(str.strip, env.get("FW_EDGE_PEER_NETWORKS", "").split(","))))
    problems.extend(f"FW_EDGE_PEER_NETWORKS: {n!r} is no network like 10.0.0.0/8" for n in networks if not is_network(n))
    is_private = env.get("FW_EDGE_PRIVATE_WEBHOOKS", "0")
    if is_private not in ("0", "1"):
        problems.append(f"FW_EDGE_PRIVATE_WEBHOOKS must be 0 or 1, not {is_private!r}")
    balancer_url = env.get("FW_EDGE_BALANCER_URL", "").rstrip("/")
    if balancer_url and not _is_base(balancer_url):
        problems.append(f"FW_EDGE_BALANCER_URL must look like http://balancer.example.org:8042, not {balancer_url!r}")
    validity_seconds = reader.number("FW_EDGE_POLICY_VALIDITY_SECONDS", VALIDITY_SECONDS, 1, LONGEST_SECONDS)
    return DecisionSettings(validity_seconds, balancer_url or None, networks, is_private == "1")


def _is_base(url: str) -> bool:
    """Scheme, host and port: MistServer puts a query of its own behind it."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment) and parts.port != 0
        )
    except ValueError:
        return False
