"""A stock Faust worker: an agent that puts every record into a table, as Faust's documentation shows it.

    python -m bench.peers.stock_faust BOOTSTRAP GROUP TOPIC DATADIR (table|none)

As a script it is the worker. The table is Faust's default, in memory; its changelog is acknowledged by all replicas as
everything that Faust produces. It prints how many records it has applied, because counting from outside would need
its web server.
"""

import sys
from pathlib import Path
from typing import Any

from bench.machine import Cores
from bench.peers.peer import Progress, ServerProcess

_COUNT = "applied "


class StockFaust(ServerProcess):
    """One Faust worker; without a table it shows what the agent alone costs."""

    def __init__(self, folder: Path, cores: Cores, bootstrap: str, topic: str, *, table: bool = True) -> None:
        super().__init__(folder, cores)
        self.name = "stock Faust" if table else "stock Faust without a table"
        self.port = 0
        self._arguments = [bootstrap, f"bench-{folder.name}", topic, str(self.state), "table" if table else "none"]

    def start(self) -> None:
        """See Peer."""
        self.state.mkdir(exist_ok=True)
        self.spawn([sys.executable, "-m", "bench.peers.stock_faust", *self._arguments])

    async def progress(self) -> Progress | None:
        """See Peer."""
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        counts = [line for line in lines if line.startswith(_COUNT)]
        if not counts:
            return None
        return Progress(int(counts[-1].removeprefix(_COUNT)), assigned=True, caught_up=True)


def _main(bootstrap: str, group: str, topic: str, data: str, table: str) -> None:
    import faust  # noqa: PLC0415  only the worker needs it

    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        datadir=Path(data),
        store="memory://",
        value_serializer="json",
        topic_partitions=4,
        topic_replication_factor=1,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    source = app.topic(topic, key_type=str, key_serializer="raw", value_serializer="json")
    rows: Any = app.Table("table", partitions=4) if table == "table" else None
    applied = 0

    @app.agent(source)  # type: ignore[untyped-decorator]  # faust is not typed
    async def apply(stream: Any) -> None:
        nonlocal applied
        async for key, value in stream.items():
            if rows is not None:
                rows[key] = value
            applied += 1

    @app.timer(0.25)  # type: ignore[untyped-decorator]  # faust is not typed
    async def count() -> None:
        print(f"{_COUNT}{applied}", flush=True)  # noqa: T201  what progress() reads

    faust.Worker(app, loglevel="WARN", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    _main(*sys.argv[1:])
