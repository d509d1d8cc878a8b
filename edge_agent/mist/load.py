"""The figures of the whole node: `<prometheus path>.json` of the API port, without a login (CONTRACT 6.7)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streams.errors import Transient

KIB = 1024


class _Document(msgspec.Struct, frozen=True):
    cpu: int
    mem_total: int
    mem_used: int
    shm_total: int
    shm_used: int
    bw: tuple[int, int]
    curr: list[int]
    bwlimit: int = 0


class Load(msgspec.Struct, frozen=True):
    """One sample."""

    cpu_permille: int
    memory_used_bytes: int
    memory_total_bytes: int
    shm_used_bytes: int
    shm_total_bytes: int
    up_bytes: int
    down_bytes: int
    viewers: int
    inputs: int
    outputs: int
    bandwidth_limit_bytes_per_second: int | None = None


def read(document: Mapping[str, object]) -> Load:
    """Raises Transient."""
    try:
        found = msgspec.convert(document, _Document, strict=False)
        viewers, inputs, outputs = found.curr[:3]
    except (msgspec.ValidationError, ValueError) as error:
        raise Transient(f"MistServer's figures are shaped otherwise than expected: {error}") from None
    return Load(
        cpu_permille=found.cpu,
        memory_used_bytes=found.mem_used * KIB,
        memory_total_bytes=found.mem_total * KIB,
        shm_used_bytes=found.shm_used * KIB,
        shm_total_bytes=found.shm_total * KIB,
        up_bytes=found.bw[0],
        down_bytes=found.bw[1],
        viewers=viewers,
        inputs=inputs,
        outputs=outputs,
        bandwidth_limit_bytes_per_second=found.bwlimit or None,
    )
