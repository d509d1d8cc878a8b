"""What sealing personal data costs the edge: values per second, of anonymous viewers (one key) and of named ones (a key each).

Baseline: the obvious way, a public-key operation (HPKE) for every value. No I/O, one core. `python -m bench.sealing --json`
prints one line of JSON per figure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from edge_agent.node_state import NodeState
from edge_agent.personal import Sealer, viewer
from streams.ids import new_id
from streams.privacy.envelope import DayKeys

NOW_MS: Final = 1_795_262_400_000
TENANT: Final = UUID(int=1)
ADDRESS: Final = b"2001:db8:85a3::8a2e:370:7334"
TARGET: Final = 10_000  # two values a viewer, 5,000 triggers a second


def rate(work: Callable[[int], object], seconds: float) -> float:
    """Calls per second; the best of three rounds."""
    best, number = 0.0, 0
    for _ in range(3):
        began, first = time.perf_counter(), number
        while (elapsed := time.perf_counter() - began) < seconds / 3:
            for _ in range(50):
                work(number)
                number += 1
        best = max(best, (number - first) / elapsed)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON per figure")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure")
    options = parser.parse_args()
    intake = X25519PrivateKey.generate().public_key()
    days = [DayKeys(datetime.fromtimestamp(NOW_MS / 1000, UTC).date(), intake.public_bytes_raw(), bytes(32))]
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    state = NodeState()
    sealer, event_id = Sealer(state, days), new_id()

    def seal(name: str | None) -> None:
        sealer.seal(viewer(TENANT, name, NOW_MS), ADDRESS, event_id=event_id, field="address", now_ms=NOW_MS)

    def named(number: int) -> None:
        """As when nobody comes twice: a key and an envelope for every viewer, and the envelope as the journal takes it."""
        seal(str(number))
        for change in state.changes.take():
            state.envelopes.drop(change.key)
        state.changes.take()

    baseline = rate(lambda _: suite.encrypt(ADDRESS, intake, b"info"), options.seconds)
    for name, work in (("anonymous viewers", lambda _: seal(None)), ("viewers with a name, each for the first time", named)):
        figure = {
            "name": f"edge: addresses sealed, {name}",
            "ours": round(rate(work, options.seconds)),
            "baseline": round(baseline),
            "baseline_is": "HPKE for every value",
            "unit": "values/s",
            "target": TARGET,
        }
        line = f"{figure['name']}: {figure['ours']} {figure['unit']} ({figure['baseline_is']}: {figure['baseline']})"
        print(json.dumps(figure) if options.json else line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
