"""The Kafka Streams service as a process."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.http_client import Client
from bench.machine import Cores
from bench.peers.kafka_streams.build import peer_class_path
from bench.peers.peer import Progress, ServerProcess
from bench.usage import Usage
from tablehouse.testing import processes
from tablehouse.testing.jars import java

# The heap is far above what the service needs; RocksDB's memory is outside of it. On one core the JVM takes the serial
# collector by itself.
_JVM = (
    "-Xms512m",
    "-Xmx1g",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


class _Owner(msgspec.Struct):
    port: int


class _Status(msgspec.Struct):
    running: bool
    tasks: int
    restoring: int
    applied: int
    began_ms: int
    began_cpu_ns: int


class KafkaStreams(ServerProcess):
    """One stream thread, a KTable on RocksDB with its changelog, and Jetty over interactive queries."""

    name = "Kafka Streams"

    def __init__(
        self,
        folder: Path,
        cores: Cores,
        bootstrap: str,
        topic: str,
        *,
        application: str = "",
        options: Sequence[str] = (),
    ) -> None:
        """Make one instance; options are the JVM's: -Dstandbys=1, -Dsession.ms=6000, -Dacceptable.lag=1000000."""
        super().__init__(folder, cores)
        self.port = processes.free_port()
        self._options = options
        application = application or f"bench-{folder.name}"
        self._arguments = [bootstrap, application, topic, str(self.state), str(self.port)]

    def start(self) -> None:
        """See Peer."""
        self.spawn([java(), *_JVM, *self._options, "-cp", peer_class_path(), "Peer", *self._arguments])

    async def progress(self) -> Progress | None:
        """See Peer; what was applied is counted since the start of the process."""
        async with Client(self.port) as client:
            code, body = await client.get("/status")
        if code == 0:
            return None
        status = msgspec.json.decode(body, type=_Status)
        began = time.monotonic() - (time.time() - status.began_ms / 1e3)
        return Progress(
            applied=status.applied,
            assigned=status.tasks > 0 or status.restoring > 0,
            caught_up=status.running and status.tasks > 0 and status.restoring == 0,
            assigned_at=Usage(began, status.began_cpu_ns / 1e9) if status.began_ms else None,
        )

    async def keys_by_owner(self, keys: Iterable[bytes]) -> Mapping[int, Sequence[bytes]]:
        """Divide keys by the port of the instance that owns them, as this one says."""
        owned: defaultdict[int, list[bytes]] = defaultdict(list)
        async with Client(self.port) as client:
            for key in keys:
                _, body = await client.get(f"/owner/{key.decode()}")
                owned[msgspec.json.decode(body, type=_Owner).port].append(key)
        return owned
