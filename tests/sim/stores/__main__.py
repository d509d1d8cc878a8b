"""python -m tests.sim.stores PROGRAM: runs a story again, as a failing test of projections, edge or reactor printed it."""

from __future__ import annotations

import json
import sys

from tests.sim.commands import quiet
from tests.sim.stores import edge, reactor
from tests.sim.stores import run as projections


def main(program: str) -> int:
    run: edge.EdgeRun | projections.ProjectionRun | reactor.ReactorRun
    try:
        with quiet():
            match json.loads(program)[0]:
                case "edge":
                    run = edge.replay(program)
                case "reactor":
                    run = reactor.replay(program)
                case _:
                    run = projections.replay(program)
    except AssertionError as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")
        return 1
    print("\n".join(run.story), "Nothing was wrong.", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
