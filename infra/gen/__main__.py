"""Writes everything that follows from the schemas: the id lock file, the dataclasses, the gRPC ingress, docs/events.md.

python -m infra.gen          writes
python -m infra.gen --check  writes nothing; exit 1 and a sentence when something is not current
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from infra.gen import lock
from infra.gen.dataclasses_file import dataclasses_file
from infra.gen.events_page import events_page
from infra.gen.proto import proto_files


def ruff(text: str) -> str:
    """Formatted as the rest of the tree is."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "generated.py", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=lock.ROOT)
    return done.stdout


def main(check: bool) -> int:
    try:
        entries = lock.appended(lock.read())
    except lock.Incompatible as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    schemas = list(lock.sources())
    wanted: dict[Path, str] = {
        lock.LOCK: lock.text(entries),
        lock.ROOT / "streams" / "generated.py": ruff(dataclasses_file(lock.meta_source(), schemas)),
        lock.ROOT / "docs" / "events.md": events_page(entries, schemas),
        **proto_files(),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(lock.ROOT)} is not current: run `make gen`", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path.relative_to(lock.ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv[1:]))
