"""`python -m infra.cli`: the same as `fw`."""

from infra.cli import main

main()
