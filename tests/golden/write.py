"""Appends golden bytes for the schema ids that have none yet. An existing file is never touched.

python -m tests.golden.write
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from streams import codec
from streams.generated import Policy
from streams.registry import Registered, registered
from tests.golden.values import Json, as_json, written

FOLDER = Path(__file__).parent


def path_of(schema: Registered) -> Path:
    return FOLDER / f"{schema.id:04d}-{schema.name}.json"


def reading(value: bytes) -> Json:
    """What today's code understands of these bytes."""
    if codec.name_of(value) in {kind.__name__ for kind in get_args(Policy)}:
        return as_json(codec.decode_policy(value))
    event, meta = codec.decode(value)
    return {"event": as_json(event), "meta": as_json(meta)}


def golden(schema: Registered) -> Json:
    values = [written(schema, full) for full in (True, False)]
    return {
        "id": schema.id,
        "subject": schema.subject,
        "version": schema.version,
        "records": [{"hex": v.hex(), "reads_as": reading(v)} for v in values],
    }


def main() -> None:
    for schema in registered():
        path = path_of(schema)
        if not path.exists():
            path.write_text(json.dumps(golden(schema), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
