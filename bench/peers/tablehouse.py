"""A Tablehouse worker."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bench.http_client import Client
from bench.machine import Cores
from bench.peers.peer import Progress, ServerProcess
from tablehouse.testing import processes


class Task(msgspec.Struct):
    """A copy of a partition; position is the last source offset applied, inclusive."""

    table: str
    partition: int
    position: int
    state: str


class _Layer(msgspec.Struct):
    name: str
    ok: bool


class _Readiness(msgspec.Struct):
    layers: list[_Layer]
    tasks: list[Task]


class Tablehouse(ServerProcess):
    """One worker with its default settings, except those of its group, spelled as in its environment."""

    name = "Tablehouse"

    def __init__(self, folder: Path, cores: Cores, group: Mapping[str, str]) -> None:
        super().__init__(folder, cores)
        self.port = processes.free_port()
        self.internal_port = processes.free_port()
        #: Where other workers reach it; another one has to be set before it starts.
        self.internal_url = f"http://127.0.0.1:{self.internal_port}"
        self._settings = {
            "data_dir": str(self.state),
            "http_host": "127.0.0.1",
            "http_port": str(self.port),
            "internal_port": str(self.internal_port),
            **group,
        }

    def start(self) -> None:
        """See Peer."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TABLEHOUSE_")}
        settings = self._settings | {"advertised_url": self.internal_url}
        ours = {f"TABLEHOUSE_{name.upper()}": value for name, value in settings.items()}
        self.spawn([sys.executable, "-m", "tablehouse", "worker"], env=inherited | ours)

    async def tasks(self, client: Client) -> list[Task]:
        """Return its copies, as a client of its port is told; none while it does not answer."""
        seen = await _readiness(client)
        return [] if seen is None else seen.tasks

    async def progress(self) -> Progress | None:
        """See Peer; source records count once for each table."""
        async with Client(self.port) as client:
            seen = await _readiness(client)
        if seen is None:
            return None
        layers = {layer.name: layer.ok for layer in seen.layers}
        return Progress(
            applied=sum(task.position + 1 for task in seen.tasks),
            assigned=layers["group"] and bool(seen.tasks),
            caught_up=all(layers.values()) and bool(seen.tasks),
        )


async def _readiness(client: Client) -> _Readiness | None:
    status, body = await client.get("/readyz?verbose")
    return None if status == 0 else msgspec.json.decode(body, type=_Readiness)


def tables_yaml(topic: str, tables: int, *, writable: bool = False, value: str = "json") -> str:
    """Return a tables.yaml with some tables over one topic, the first of which is called table."""
    names = ["table", *(f"table{number}" for number in range(2, tables + 1))]
    rest = f"source: {{topic: {topic}, key: string, value: {value}}}, writable: {str(writable).lower()}"
    return "tables:\n" + "".join(f"  - {{name: {name}, {rest}}}\n" for name in names)
