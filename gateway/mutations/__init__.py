"""Mutations, one module an aggregate. To add one: a module like `streams.py` with TYPES, and its name here."""

from __future__ import annotations

from typing import Final

from gateway.mutations import balancer, erasures, nodes, policy, pushes, streams, tenants

TYPES: Final = (*tenants.TYPES, *streams.TYPES, *erasures.TYPES, *nodes.TYPES, *policy.TYPES, *pushes.TYPES, *balancer.TYPES)
