"""What the agent counts. A registry of its own: two agents in one process do not count together."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as LabelledCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

ANSWER_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.5, 1.0, 5.0)  # limits of the buckets


class Observed(Protocol):
    """Figures that are read when they are asked for."""

    def gauges(self) -> Iterator[tuple[str, str, float]]:
        """(name, help, value)."""

    def totals(self) -> Iterator[tuple[str, str, float]]:
        """(name without `_total`, help, value)."""


class Metrics:
    """Plain numbers, turned into metrics when they are asked for: a counter of the library takes a lock and a microsecond."""

    def __init__(self, observed: Observed) -> None:
        self.registry = CollectorRegistry()
        self.triggers: Counter[tuple[str, str]] = Counter()  # (name, result)
        self.facts: Counter[str] = Counter()  # by record
        self.refused: Counter[str] = Counter()  # by status
        self.unknown = self.unavailable = 0
        self._answers = [0] * (len(ANSWER_SECONDS) + 1)
        self._answer_seconds = 0.0
        self.inquiries = LabelledCounter(
            "fw_edge_inquiries",
            "Questions asked while a trigger waited, by who was asked and what came of it.",
            ["asked", "outcome"],
            registry=self.registry,
        )
        self.registry.register(_Reader(observed, self))

    def count_trigger(self, name: str, result: str) -> None:
        self.triggers[name, result] += 1

    def count_fact(self, event: str) -> None:
        self.facts[event] += 1

    def count_answer(self, seconds: float) -> None:
        self._answers[bisect_left(ANSWER_SECONDS, seconds)] += 1
        self._answer_seconds += seconds

    def families(self) -> Iterator[Metric]:
        triggers = CounterMetricFamily(
            "fw_edge_triggers", "Triggers by name and by what became of them.", labels=("trigger", "result")
        )
        for (name, result), count in sorted(self.triggers.items()):
            triggers.add_metric((name, result), count)
        facts = CounterMetricFamily("fw_edge_facts", "Facts written to the journal.", labels=("event",))
        for record, count in sorted(self.facts.items()):
            facts.add_metric((record,), count)
        refused = CounterMetricFamily("fw_edge_refused_requests", "Requests refused before they were one.", labels=("status",))
        for status, count in sorted(self.refused.items()):
            refused.add_metric((status,), count)
        buckets = [(str(limit), sum(self._answers[: n + 1])) for n, limit in enumerate((*ANSWER_SECONDS, "+Inf"))]
        yield from (triggers, facts, refused)
        yield CounterMetricFamily("fw_edge_unknown_triggers", "Requests for triggers that do not exist.", self.unknown)
        yield CounterMetricFamily("fw_edge_backpressure", "Triggers answered 503: nothing can be written.", self.unavailable)
        yield HistogramMetricFamily(
            "fw_edge_answer_seconds", "From a whole request to its answer.", buckets=buckets, sum_value=self._answer_seconds
        )


class _Reader(Collector):
    def __init__(self, observed: Observed, metrics: Metrics) -> None:
        self._observed, self._metrics = observed, metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics.families()
        for name, text, value in self._observed.gauges():
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, value in self._observed.totals():
            yield CounterMetricFamily(name, text, value=value)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
