"""What every measurement works with."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.figures import Figures
from bench.machine import Cores
from bench.peers.tablehouse import Tablehouse, tables_yaml
from bench.source import Source, Topics

#: Connections of the load generator.
CONNECTIONS = 32

_RECORDS = 2_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One run: its broker, its folder, and where figures go.

    records is the size of the main source; every other size shrinks with it, for quick tries. read_seconds is how long
    one read measurement takes.
    """

    bootstrap: str
    folder: Path
    cores: Cores
    topics: Topics
    figures: Figures
    records: int
    rounds: int
    read_seconds: float
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def source(self) -> Source:
        """The source that all programs read."""
        return self.sized(_RECORDS, 200_000, 4)

    def sized(
        self, records: int, keys: int, partitions: int, value_bytes: int = 150, *, updated_by: str = ""
    ) -> Source:
        """Return a source of full size, or smaller as this run is."""
        share = self.records / _RECORDS
        return Source(max(1, int(records * share)), max(1, int(keys * share)), partitions, value_bytes, updated_by)

    def new_folder(self, name: str) -> Path:
        """Return a folder, whose name is also the group's, that nobody used before."""
        return self.folder / f"{name}-{next(self._numbers)}"

    def worker(self, topic: str, *, tables: int = 1, writable: bool = False, **settings: str) -> Tablehouse:
        """Return a worker of a new group."""
        return self.workers(topic, 1, tables=tables, writable=writable, **settings)[0]

    def workers(
        self, topic: str, count: int, *, tables: int = 1, writable: bool = False, **settings: str
    ) -> list[Tablehouse]:
        """Return the workers of a new group, which have `settings` in common."""
        folder = self.new_folder("tablehouse")
        folder.mkdir(parents=True)
        tables_file = folder / "tables.yaml"
        tables_file.write_text(tables_yaml(topic, tables, writable=writable), "utf-8")
        group = {
            "bootstrap_servers": self.bootstrap,
            "tables": str(tables_file),
            "group": f"bench-{folder.name}",
            **settings,
        }
        return [Tablehouse(folder / f"worker-{number + 1}", self.cores, group) for number in range(count)]

    def say(self, text: str) -> None:
        """Tell the person who waits."""
        print(f"  {text}", flush=True)  # noqa: T201
