"""Topics as data: what `streams/topics.py` says about them is made so on the cluster."""

from infra.kafka.cluster import apply, plan
from infra.kafka.diff import Change, ConfigChanged, Found, Refused, Replication, TopicCreated

__all__ = ["Change", "ConfigChanged", "Found", "Refused", "Replication", "TopicCreated", "apply", "plan"]
