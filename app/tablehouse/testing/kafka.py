"""A real Apache Kafka on this machine, only from pip packages, for the demo, tests and benchmarks."""

import base64
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tablehouse.errors import SetupError
from tablehouse.testing import processes
from tablehouse.testing.jars import java, kafka_class_path

_READY_DEADLINE = 90.0  # seconds; 2 to 6 are usual
_STOP_GRACE = 10.0
_MAX_BROKERS = 3

_JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    # Intended by the broker, but Java 25 would otherwise log warnings about it.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


@dataclass(slots=True)
class _Node:
    node_id: int
    port: int
    controller_port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"


@dataclass(frozen=True, slots=True)
class Listener:
    """An additional port of a single broker: its name in lower case, its protocol, and its properties.

    Properties are those of the broker without the prefix `listener.name.<name>.`. `advertised` is the advertised
    host:port, by default the actual one. It listens on `host`.
    """

    name: str
    protocol: str
    properties: Mapping[str, str]
    port: int = field(default_factory=processes.free_port)
    advertised: str | None = None
    host: str = "127.0.0.1"

    @property
    def bootstrap_servers(self) -> str:
        """Its `host:port`."""
        return f"{self.host}:{self.port}"


class EmbeddedKafka(processes.Service):
    """One to three brokers (KRaft, combined with their controllers) on 127.0.0.1, their data in `data_dir`.

    If restarted with the same folder, it has the same data. Ports are free ones, unless `port` is that of the first
    broker (the next brokers use the next ports); they stay the same for the lifetime of the object. Brokers are
    numbered from 0. On Linux they end with this process, even if that is killed. Not thread-safe.

    `listeners` are additional ports of a single broker, and `scram` are users of SCRAM-SHA-512 with their passwords,
    created with the data folder. `properties` are additional ones of all brokers, and `class_path` is a folder of
    classes for them.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        brokers: int = 1,
        port: int | None = None,
        listeners: Sequence[Listener] = (),
        scram: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        class_path: Path | None = None,
    ) -> None:
        if not 1 <= brokers <= _MAX_BROKERS:
            raise ValueError(f"brokers={brokers}: 1 to {_MAX_BROKERS} are possible")
        if listeners and brokers > 1:
            raise ValueError(f"brokers={brokers}: additional listeners are only possible with a single broker")
        self._listeners = listeners
        self._scram = scram or {}
        self._properties = properties or {}
        self._class_path = class_path
        self._data_dir = data_dir.absolute()
        self._fixed_port = port is not None
        self._nodes = [
            _Node(
                node_id=index + 1,
                port=processes.free_port() if port is None else port + index,
                controller_port=processes.free_port(),
                folder=self._data_dir / f"broker-{index}",
            )
            for index in range(brokers)
        ]

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of every broker, separated by commas."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes)

    def start(self) -> None:
        """Start every broker and return once all of them answer and know each other.

        Raises SetupError, with nothing left running: a busy port, missing packages or downloads, or a broker
        that did not come up (with the end of its log).
        """
        for node in self._nodes:
            if self._fixed_port and not processes.port_is_free(node.port):
                raise SetupError(
                    f"port {node.port} of 127.0.0.1 is in use, so the embedded Kafka cannot listen there: "
                    "end what listens on it, or choose another port"
                )
        try:
            self._format()
            for node in self._nodes:
                self._launch(node)
            everyone = {node.node_id for node in self._nodes}
            for node in self._nodes:
                self._wait_ready(node, everyone)
        except BaseException:
            self._stop(grace=0)
            raise

    def stop(self) -> None:
        """Stop every broker, cleanly within a few seconds or else with SIGKILL; the data is kept."""
        self._stop(grace=_STOP_GRACE)

    def kill(self, broker: int = 0) -> None:
        """End a broker with SIGKILL."""
        process = self._running(broker)
        process.kill()
        process.wait()

    def pause(self, broker: int = 0) -> None:
        """Suspend a broker (SIGSTOP): its connections stay open, but it does not answer."""
        self._running(broker).send_signal(signal.SIGSTOP)

    def resume(self, broker: int = 0) -> None:
        """Resume a paused broker."""
        self._running(broker).send_signal(signal.SIGCONT)

    def restart(self, broker: int = 0) -> None:
        """Stop a broker cleanly if it runs, start it on the same data, and wait until it answers."""
        node = self._nodes[broker]
        if node.process is not None:
            processes.end([node.process], grace=_STOP_GRACE)
        self._launch(node)
        self._wait_ready(node, {node.node_id})

    def _running(self, broker: int) -> subprocess.Popen[bytes]:
        process = self._nodes[broker].process
        if process is None or process.poll() is not None:
            raise RuntimeError(f"broker {broker} of {self.bootstrap_servers} is not running")
        return process

    def _stop(self, grace: float) -> None:
        processes.end([node.process for node in self._nodes if node.process is not None], grace=grace)

    def _launch(self, node: _Node) -> None:
        command = [java(), *_JVM, "-cp", self._classes(), "kafka.Kafka", str(node.properties)]
        node.process = processes.spawn(command, log=node.log)

    def _classes(self) -> str:
        jars = kafka_class_path()
        return jars if self._class_path is None else f"{jars}{os.pathsep}{self._class_path}"

    def _format(self) -> None:
        cluster_file = self._data_dir / "cluster-id"
        if not cluster_file.exists():
            self._data_dir.mkdir(parents=True, exist_ok=True)
            cluster_file.write_text(_new_cluster_id(), "ascii")
        cluster_id = cluster_file.read_text("ascii")
        formatting = []
        for node in self._nodes:
            node.folder.mkdir(exist_ok=True)
            # Written at each start, since ports may differ for the same data.
            node.properties.write_text(
                _server_properties(node, self._nodes, self._listeners, self._properties), "utf-8"
            )
            if not (node.folder / "data" / "meta.properties").exists():
                tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(node.properties)]
                for user, password in self._scram.items():
                    tool += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
                command = [java(), *_JVM, "-cp", self._classes(), *tool]
                formatting.append((node, processes.spawn(command, log=node.log)))
        for node, process in formatting:
            if process.wait(_READY_DEADLINE) != 0:
                raise SetupError(_with_log("the data folder of the embedded Kafka could not be formatted", node))

    def _wait_ready(self, node: _Node, needed: set[int]) -> None:
        deadline = time.monotonic() + _READY_DEADLINE
        while not needed <= known_brokers(node.port):
            if node.process is None or node.process.poll() is not None:
                raise SetupError(_with_log("the embedded Kafka ended while it was starting", node))
            if time.monotonic() > deadline:
                raise SetupError(_with_log(f"the embedded Kafka was not ready after {_READY_DEADLINE:.0f} s", node))
            time.sleep(0.05)


def _with_log(message: str, node: _Node) -> str:
    return f"{message}; the last lines of {node.log}:\n{processes.last_lines(node.log)}"


def _new_cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode("ascii").rstrip("=")
        if not text.startswith("-"):  # the format tool would treat it as an option
            return text


def _server_properties(
    node: _Node, nodes: Sequence[_Node], more: Sequence[Listener], properties: Mapping[str, str]
) -> str:
    replicas = len(nodes)
    open_to_clients = [f"PLAINTEXT://127.0.0.1:{node.port}"]
    advertised = list(open_to_clients)
    for listener in more:
        open_to_clients.append(f"{listener.name.upper()}://{listener.bootstrap_servers}")
        advertised.append(f"{listener.name.upper()}://{listener.advertised or listener.bootstrap_servers}")
    protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
    protocols += [f"{listener.name.upper()}:{listener.protocol}" for listener in more]
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node.node_id,
        "controller.quorum.voters": ",".join(f"{n.node_id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "listeners": ",".join([*open_to_clients, f"CONTROLLER://127.0.0.1:{node.controller_port}"]),
        "advertised.listeners": ",".join(advertised),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(protocols),
        "log.dirs": node.folder / "data",
        "default.replication.factor": replicas,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": min(2, replicas),
        # Groups form immediately, and tests may use short sessions.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # A killed broker can only rejoin after its session has ended; with three brokers, another one leads from then
        # on.
        "broker.session.timeout.ms": 3000 if replicas == 1 else 6000,
        "broker.heartbeat.interval.ms": 500,
        # Small: the defaults are for machines with hundreds of topics and gigabytes of heap.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # Compaction runs within the duration of a test.
        "log.cleaner.backoff.ms": 500,
    }
    settings |= properties
    for listener in more:
        settings |= {f"listener.name.{listener.name}.{name}": value for name, value in listener.properties.items()}
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def known_brokers(port: int) -> set[int]:
    """Return the node ids of the brokers that a broker knows to be up; empty if it does not answer.

    Kafka's Metadata request, version 1, without topics. An open port is not sufficient: a broker listens long before it
    serves.
    """
    client, topics = b"ready", 0
    request = struct.pack(f">hhih{len(client)}si", 3, 1, 0, len(client), client, topics)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            answer = _receive(connection, size)
    except (OSError, EOFError):
        return set()
    count, position = struct.unpack_from(">i", answer, 4)[0], 8  # after the correlation id
    known = set()
    for _ in range(count):
        node_id, host_size = struct.unpack_from(">ih", answer, position)
        known.add(node_id)
        position += 4 + 2 + host_size + 4  # node id, host, port
        (rack_size,) = struct.unpack_from(">h", answer, position)
        position += 2 + max(0, rack_size)
    return known


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
