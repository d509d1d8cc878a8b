"""What a fetch hands over: records of one partition, as the Kafka client made them. Imports neither Faust nor aiokafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class TP(NamedTuple):
    """A partition of a topic. Equal to Faust's and aiokafka's tuples of the same name and content."""

    topic: str
    partition: int


class ConsumerRecord(Protocol):
    """One record as it lies on the log (aiokafka's `ConsumerRecord` is one)."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """When it was appended, in milliseconds since 1970."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Halted(Exception):
    """The line stops here until a person acts: the message says where, why and what to do. The process exits, nothing is lost."""
