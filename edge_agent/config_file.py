"""A TOML file that says what environment variables could: `[mist] api = "…"` is FW_EDGE_MIST_API.

Invariant: a flag goes before a variable, and a variable before the file. A name in the file that nothing asks for is a
problem, so that a spelling mistake is found at the start.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

CONFIG: Final = "FW_EDGE_CONFIG"
SHARED: Final = {
    "LOG_LEVEL": "FW_LOG_LEVEL",
    "GEOIP_DB": "FW_GEOIP_DB",
    "OTEL_ENDPOINT": "FW_OTEL_ENDPOINT",
    "DATA_DIR": "FW_DATA_DIR",
}


class Variables(Mapping[str, str]):
    """Variables, with those of the file behind them. Remembers what was asked for."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._env, self._asked = env, {CONFIG}
        file = env.get(CONFIG)
        self.file = Path(file) if file else None
        self._of_file = self._read(self.file) if self.file else {}

    def __getitem__(self, name: str) -> str:
        self._asked.add(name)
        return self._env[name] if self._env.get(name) else self._of_file[name] if name in self._of_file else self._env[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._env.keys() | self._of_file.keys())

    def __len__(self) -> int:
        return len(self._env.keys() | self._of_file.keys())

    def unasked(self) -> list[str]:
        """Problems: names of the file that mean nothing."""
        return [f"{self.file}: {_spelled(name)} means nothing to an edge agent" for name in self._of_file.keys() - self._asked]

    def _read(self, file: Path) -> Mapping[str, str]:
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            self.problems.append(f"{CONFIG}: cannot read {file}: {error.strerror}")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self.problems.append(f"{CONFIG}: {file} is no TOML: {error}")
        else:
            return dict(self._flat("", found))
        return {}

    def _flat(self, prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        for key, value in table.items():
            name = f"{prefix}{key.upper()}"
            match value:
                case dict():
                    yield from self._flat(f"{name}_", value)
                case bool():
                    yield _variable(name), "1" if value else "0"
                case str() | int() | float():
                    yield _variable(name), str(value)
                case list() if all(isinstance(item, str) for item in value):
                    yield _variable(name), ",".join(value)
                case _:
                    self.problems.append(f"{self.file}: {key} must be a text, a number, true or false, or a list of texts")


def variables(env: Mapping[str, str] | None) -> Variables:
    return Variables(os.environ if env is None else env)


def _variable(name: str) -> str:
    return SHARED.get(name, f"FW_EDGE_{name}")


def _spelled(variable: str) -> str:
    return next((name for name, shared in SHARED.items() if shared == variable), variable.removeprefix("FW_EDGE_")).lower()
