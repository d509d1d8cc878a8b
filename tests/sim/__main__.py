"""`python -m tests.sim`: plays a run again that a test wrote down, or looks for new ones."""

from __future__ import annotations

import argparse
import sys

from tests.sim.command_machine import explore
from tests.sim.command_mutants import MUTANTS
from tests.sim.replay import Found, replay

EXAMPLES = """examples:
  python -m tests.sim '[7,null,["start"],["time",4],["send",0,"register",0,0,0]]'
  python -m tests.sim --explore 1000
  python -m tests.sim --explore 100 --mutant 'no fencing'
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", nargs="?", help="the run, as the failing test printed it")
    parser.add_argument("--explore", type=int, metavar="N", help="look for a run that breaks something among N")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="take a piece of safety out, to see it missed")
    arguments = parser.parse_args()
    try:
        if arguments.explore is not None:
            explore(arguments.mutant, arguments.explore)
            print(f"{arguments.explore} runs, nothing found")
        elif arguments.program is not None:
            run = replay(arguments.program)
            print("\n".join(run.story))
            print(f"Nothing is wrong. The logs: {run.digest()}.")
        else:
            parser.error("name a run, or --explore")
    except Found as found:
        print(found)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
