"""An Apache Kafka that still keeps old message formats: 3.9 with ZooKeeper and the protocol of 2.8 between brokers."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tablehouse.testing import processes
from tablehouse.testing.jars import JarSet, class_path, java
from tablehouse.testing.kafka import known_brokers

if TYPE_CHECKING:
    import subprocess

_VERSION = "3.9.1"
_JARS = JarSet(
    f"Apache Kafka {_VERSION}", f"kafka-{_VERSION}-zookeeper", Path(__file__).with_name("old_kafka_jars.txt")
)
_DEADLINE, _STOP_GRACE = 90.0, 10.0  # seconds
_JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class OldKafka(processes.Service):
    """One broker and its ZooKeeper on 127.0.0.1, their data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._zookeeper_port = processes.free_port(), processes.free_port()
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of the broker."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start both, and return when the broker answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        zookeeper = {
            "dataDir": self._folder / "zookeeper",
            "clientPort": self._zookeeper_port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
        }
        kafka = {
            "broker.id": 1,
            "listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "zookeeper.connect": f"127.0.0.1:{self._zookeeper_port}",
            "log.dirs": self._folder / "data",
            # From 3.0 on message.format.version is ignored.
            "inter.broker.protocol.version": "2.8",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
        }
        try:
            self._launch("zookeeper", "org.apache.zookeeper.server.quorum.QuorumPeerMain", zookeeper)
            # Kafka tries again until ZooKeeper is there.
            self._launch("kafka", "kafka.Kafka", kafka)
            self._wait_ready()
        except BaseException:
            processes.end(self._running, grace=0)
            raise

    def stop(self) -> None:
        """Stop the broker, and ZooKeeper after it."""
        for process in reversed(self._running):
            processes.end([process], grace=_STOP_GRACE)

    def _launch(self, name: str, main: str, settings: dict[str, object]) -> None:
        file = self._folder / f"{name}.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), "utf-8")
        command = [java(), *_JVM, "-cp", class_path(_JARS), main, str(file)]
        self._running.append(processes.spawn(command, log=self._folder / f"{name}.log"))

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _DEADLINE
        while not known_brokers(self._port):
            ended = [process.args for process in self._running if process.poll() is not None]
            assert not ended, f"ended while starting: {ended}\n{processes.last_lines(self._folder / 'kafka.log')}"
            assert time.monotonic() < deadline, processes.last_lines(self._folder / "kafka.log")
            time.sleep(0.05)
