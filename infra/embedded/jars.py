"""Kafka's jars, by coordinate and sha256. Invariant: no byte that is not in jars.lock gets onto the class path.

The local Maven repository is the cache; a start with a warm cache imports no resolver and opens no socket. What is
missing or damaged is fetched through jgo (which honours the Maven settings of the machine) into a scratch repository,
verified, and moved into place, so a download that was cut short never looks like a jar.

`python -m infra.embedded.jars` resolves KAFKA and SLF4J_BINDING anew and writes the lock file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import DAMAGED_DOWNLOAD, CannotStart

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka 4 is written against slf4j-api 1.7 and log4j 2: the binding is log4j-slf4j-impl (not the slf4j2 one), of exactly
# the version of the log4j-core that Kafka brings.
SLF4J_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
LOCK = Path(__file__).with_name("jars.lock")

PARALLEL_DOWNLOADS = 6

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> Path:
        """Below the root of a Maven repository."""
        return Path(*self.group.split("."), self.artifact, self.version, self.name)


def locked() -> list[Jar]:
    """The jars of the class path, in its order."""
    jars = []
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, sha256.removeprefix("sha256:")))
    return jars


def repository() -> Path:
    """The local Maven repository of this user (M2_REPO moves it, as everywhere)."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def sha256_of(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def missing_or_damaged() -> tuple[list[Jar], list[Jar]]:
    """What a start would have to fetch, and what it would have to replace."""
    missing, damaged = [], []
    for jar in locked():
        file = repository() / jar.path
        if not file.is_file():
            missing.append(jar)
        elif sha256_of(file) != jar.sha256:
            damaged.append(jar)
    return missing, damaged


def class_path(say: Say = lambda _: None) -> list[Path]:
    """Every jar of Kafka, present and verified; fetches what is not. Raises CannotStart with a sentence."""
    missing, damaged = missing_or_damaged()
    for jar in damaged:
        say(f"{jar.name} is damaged (its sha256 is not the one in {LOCK.name}), fetching it again")
    wanted = missing + damaged
    if wanted:
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            for number, jar in enumerate(pool.map(_fetch, wanted), 1):
                say(f"downloaded {jar.name} ({number} of {len(wanted)})")
    return [repository() / jar.path for jar in locked()]


def _fetch(jar: Jar) -> Jar:
    from jgo.maven import MavenContext  # 0.3 s to import: only when something is to be fetched

    target = repository() / jar.path
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside its target, so that the last step is a rename
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as scratch:
        try:
            context = MavenContext(repo_cache=Path(scratch), timeout=60)
            fetched = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except OSError as e:  # includes every error of the HTTP client underneath
            raise CannotStart(
                f"{jar.name}, a part of Kafka, is not on this machine and could not be downloaded ({type(e).__name__}). "
                "Connect to the internet (or set the proxy) and start again; it is needed once.",
                DAMAGED_DOWNLOAD,
            ) from e
        except RuntimeError as e:  # jgo: not in any repository, or its checksum differs
            raise CannotStart(
                f"{jar.name}, a part of Kafka, could not be downloaded: {e}. Start again later.", DAMAGED_DOWNLOAD
            ) from e
        if sha256_of(fetched) != jar.sha256:
            raise CannotStart(
                f"The download of {jar.name} is damaged: its sha256 is not the one in {LOCK.name}. Nothing was installed. "
                "Start again; if it happens twice, something between here and the repository changes files.",
                DAMAGED_DOWNLOAD,
            )
        os.replace(fetched, target)
    return jar


def write_lock() -> None:
    import jgo

    # Two builds on purpose: "kafka+binding" in one endpoint lets log4j's BOM pin kafka-clients to 3.9 under a 4.3 server.
    # From the second only the binding is taken.
    binding = SLF4J_BINDING.split(":")[1]
    files = [*jgo.build(KAFKA).all_jars, *(j for j in jgo.build(SLF4J_BINDING).all_jars if j.name.startswith(binding))]
    by_name: dict[str, list[Path]] = {}
    for cached in repository().rglob("*.jar"):
        by_name.setdefault(cached.name, []).append(cached)
    lines = []
    for file in files:
        digest = sha256_of(file)
        (home,) = [c for c in by_name[file.name] if sha256_of(c) == digest]
        *group, artifact, version, _ = home.relative_to(repository()).parts
        lines.append(f"{'.'.join(group)}:{artifact}:{version} sha256:{digest}")
    scratch = LOCK.with_suffix(".new")
    scratch.write_text("# Written by `python -m infra.embedded.jars`: Kafka's class path.\n" + "\n".join(sorted(lines)) + "\n")
    shutil.move(scratch, LOCK)


if __name__ == "__main__":
    write_lock()
    print(f"{len(locked())} jars in {LOCK.name}")
