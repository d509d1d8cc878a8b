"""The write side: commands are decided here, and nowhere else."""

from __future__ import annotations

from typing import Final

from commands.aggregate import Aggregate, owned, root
from commands.balancer import BALANCER, Balancer
from commands.erasure import ERASURE, Erasure
from commands.node import NODE, Node
from commands.stream import STREAM, Stream
from commands.tenant import TENANT

AGGREGATES: Final[tuple[Aggregate, ...]] = (
    root(TENANT),
    owned(STREAM, Stream),
    owned(ERASURE, Erasure),
    owned(NODE, Node),
    owned(BALANCER, Balancer),
)
"""Every kind of aggregate. A command and a decision belong to exactly one of them."""
