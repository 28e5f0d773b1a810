"""The demo's worker processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tablehouse.testing import processes
from tablehouse.testing.ports import WORKERS, Ports

#: The tables that the workers serve.
TABLES = Path(__file__).with_name("tables.yaml")

#: Time after which a killed worker's partitions move; the shortest session that brokers allow by default.
SESSION_TIMEOUT = "6s"

# Longer than a worker's own shutdown timeout.
_STOP_GRACE = 30.0
_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class DemoWorker:
    """One worker process; `url` is its public address, `internal_url` the one used by peers."""

    number: int
    url: str
    internal_url: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def runs(self) -> bool:
        """Whether the process is running."""
        return self.process.poll() is None

    def how_it_ended(self) -> str:
        """Return how the process ended, with the end of its log, unless it was killed, which a log does not show."""
        code = self.process.returncode
        if code == -signal.SIGKILL:
            return f"worker {self.number} was ended by SIGKILL; its log is {self.log}"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"worker {self.number} {how}; the last lines of {self.log}:\n{processes.last_lines(self.log)}"


def start_workers(
    folder: Path, bootstrap: str, ports: Ports, tables: Path = TABLES, group: str = "tablehouse-demo"
) -> list[DemoWorker]:
    """Start the workers with their data and logs in `folder`."""
    return [_start(index, folder, bootstrap, ports, tables, group) for index in range(WORKERS)]


async def watch_workers(workers: Iterable[DemoWorker], report: Callable[[str], None]) -> None:
    """Report each worker that ends by itself; return once none is left."""
    watched = list(workers)
    while watched:
        for worker in [worker for worker in watched if not worker.runs]:
            watched.remove(worker)
            report(worker.how_it_ended())
        await asyncio.sleep(_WATCH_SECONDS)


def stop_workers(workers: Iterable[DemoWorker]) -> None:
    """Ask all workers to stop, and kill those that are still running after half a minute."""
    processes.end([worker.process for worker in workers], grace=_STOP_GRACE)


def _start(index: int, folder: Path, bootstrap: str, ports: Ports, tables: Path, group: str) -> DemoWorker:
    name = f"worker-{index + 1}"
    http_port, internal_port = ports.http + index, ports.internal + index
    internal_url = f"http://127.0.0.1:{internal_port}"
    settings = {
        "TABLEHOUSE_BOOTSTRAP_SERVERS": bootstrap,
        "TABLEHOUSE_TABLES": str(tables),
        "TABLEHOUSE_GROUP": group,
        "TABLEHOUSE_DATA_DIR": str(folder / name),
        "TABLEHOUSE_HTTP_HOST": "127.0.0.1",
        "TABLEHOUSE_HTTP_PORT": str(http_port),
        "TABLEHOUSE_INTERNAL_PORT": str(internal_port),
        "TABLEHOUSE_ADVERTISED_URL": internal_url,
        "TABLEHOUSE_SESSION_TIMEOUT": SESSION_TIMEOUT,
        "TABLEHOUSE_TAKEOVER_INTERVAL": "5s",
        "TABLEHOUSE_LOG_FORMAT": "console",
    }
    # Remove settings of the shell, which are meant for other workers and would change the demo.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TABLEHOUSE_")}
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "tablehouse", "worker"]
    process = processes.spawn(command, log=log, env=inherited | settings)
    return DemoWorker(index + 1, f"http://127.0.0.1:{http_port}", internal_url, log, process)
