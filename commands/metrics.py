"""What a command worker tells Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

commands: Final = Counter("fw_commands_total", "Commands taken from the log, by what became of them", ["result"])
dead_letters: Final = Counter("fw_commands_dead_letters_total", "Records of the command topic that went to the dead letters")
events: Final = Counter("fw_commands_events_total", "Decisions written")
batch_size: Final = Histogram(
    "fw_commands_batch_size", "Commands per transaction", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)
transaction_seconds: Final = Histogram(
    "fw_commands_transaction_seconds",
    "From a batch of commands in hand to its transaction committed",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
fold_seconds: Final = Histogram(
    "fw_commands_fold_seconds",
    "From the assignment of a partition to its state being complete",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
partitions_owned: Final = Gauge(
    "fw_commands_partitions_owned", "Partitions whose state is complete and whose commands are decided here"
)
restarts: Final = Counter("fw_commands_restarts_total", "Times that everything was dropped and begun again", ["reason"])
