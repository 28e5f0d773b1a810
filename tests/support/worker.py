"""Real worker processes: started on free ports over a folder of their own, and ended by their own ids."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp
import pytest

from tablehouse.testing import processes
from tests.support.http_workers import Reply, ask
from tests.support.polling import until

# A worker allows itself 25 s to shut down, unless a test sets shutdown_timeout.
_EXIT_DEADLINE = 120.0


class WorkerProcess:
    """One worker; its data directory, ports and log outlive the processes that are started on them.

    tables is the text of its tables.yaml, settings are spelled like the flags with _ for -, such as
    session_timeout="6s". environment is for what is no setting, command is what runs a worker.
    """

    #: What runs a worker of this version.
    COMMAND: ClassVar[Sequence[str]] = (sys.executable, "-m", "tablehouse", "worker")

    def __init__(self, folder: Path, bootstrap: str, tables: str, *, group: str, **settings: str) -> None:
        self.group = group
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_file = folder / "worker.log"
        self.tables_file = folder / "tables.yaml"
        self.tables_file.write_text(tables, "utf-8")
        http_port, internal_port = processes.free_port(), processes.free_port()
        self.was_paused = False
        self.url = f"http://127.0.0.1:{http_port}"
        self.internal_url = f"http://127.0.0.1:{internal_port}"
        self.settings = {
            "bootstrap_servers": bootstrap,
            "tables": str(self.tables_file),
            "group": group,
            "data_dir": str(self.data_dir),
            "http_host": "127.0.0.1",
            "http_port": str(http_port),
            "internal_port": str(internal_port),
            "advertised_url": self.internal_url,
            "session_timeout": "3s",
            "takeover_interval": "1s",
            "memory_budget": "64MiB",
            "log_format": "console",
            **settings,
        }
        self.environment: dict[str, str] = {}
        self.command = self.COMMAND
        self.process: subprocess.Popen[bytes] | None = None

    # The process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
        if error is not None:
            self.print_log()

    def start(self) -> None:
        """Start a process; there must be none."""
        assert self.process is None or self.process.poll() is not None, "the worker runs already"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TABLEHOUSE_")}
        ours = {f"TABLEHOUSE_{name.upper()}": value for name, value in self.settings.items()}
        self.process = processes.spawn(self.command, log=self.log_file, env=inherited | ours | self.environment)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._running().pid

    @property
    def called(self) -> str:
        """What other workers call its process: id and incarnation."""
        identity = json.loads((self.data_dir / "worker.json").read_text("utf-8"))
        return f"{identity['worker_id']} {identity['incarnation']}"

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process; None while it runs."""
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        process = self._running()
        process.kill()
        process.wait()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its connections stay open and nothing answers."""
        self.was_paused = True
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process run on."""
        self._running().send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask the process to leave (SIGTERM)."""
        self._running().send_signal(signal.SIGTERM)

    async def wait_exit(self, seconds: float = _EXIT_DEADLINE) -> int:
        """Wait until the process has ended, and return its exit code."""

        async def ended() -> int | None:
            return self.exit_code

        return await until(ended, f"{self.folder.name} ends", seconds)

    def close(self) -> None:
        """End whatever process there is, for good."""
        if self.process is not None:
            processes.end([self.process], grace=0)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            # Not an AssertionError, which polling would take for "not yet".
            raise RuntimeError(f"{self.folder.name} does not run, exit code {self.exit_code}:\n{self.log_end()}")
        return self.process

    # What it says

    def log_text(self) -> str:
        """Return everything that its processes have logged."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def log_end(self, lines: int = 40) -> str:
        """Return the last lines of the log, without those of single requests."""
        kept = [line for line in self.log_text().splitlines() if " request_id=" not in line]
        return "\n".join(kept[-lines:])

    def print_log(self) -> None:
        """Print the end of the log; pytest shows it only when the test fails."""
        print(f"--- {self.log_file}\n{self.log_end(80)}")  # noqa: T201

    async def document(self, path: str) -> tuple[int, Any]:
        """GET a JSON document of the public listener: status and content; (0, None) when there is no connection."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(self.url + path) as answer,
            ):
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError):
            return 0, None

    @staticmethod
    def generation_in(readiness: Mapping[str, Any]) -> int:
        """Return the group's generation out of what /readyz says."""
        (generation,) = (layer["generation"] for layer in readiness["layers"] if layer["name"] == "group")
        return int(generation)

    async def tasks(self) -> list[dict[str, Any]]:
        """Return what /readyz?verbose says of each task; empty when there is no connection."""
        _, seen = await self.document("/readyz?verbose")
        return [] if seen is None else list(seen["tasks"])

    async def owned(self) -> list[dict[str, Any]]:
        """Return those of tasks() that are active."""
        return [task for task in await self.tasks() if task["state"] == "active"]

    async def metric(self, name: str, **labels: str) -> float:
        """Return a metric, summed up over what has these labels; 0 when there is none."""
        return sum(
            value
            for sample, value in (await self.metrics()).items()
            if sample.partition("{")[0] == name and all(f'{label}="{text}"' in sample for label, text in labels.items())
        )

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Reply:
        """GET a target of the public listener, byte for byte."""
        return await ask(self.url, target, headers)

    async def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until /readyz is 200; fail at once when the process ends."""
        seen: Any = None

        async def ready() -> bool:
            nonlocal seen
            self._running()
            status, seen = await self.document("/readyz?verbose")
            return status == 200

        try:
            await until(ready, f"{self.folder.name} is ready", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast seen: {seen}\n{self.log_end()}") from None

    async def wait_active(self, seconds: float = 60.0) -> None:
        """Wait until it is joined and every task it has is active now; readiness latches, this does not."""
        seen: Any = None

        async def active() -> bool:
            nonlocal seen
            self._running()
            status, seen = await self.document("/readyz?verbose")
            return status == 200 and all(layer["ok"] for layer in seen["layers"])

        try:
            await until(active, f"every task of {self.folder.name} is active", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast seen: {seen}\n{self.log_end()}") from None

    async def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics by its text, labels included: `tablehouse_generation`, `name{table="t"}`."""
        async with aiohttp.ClientSession() as session, session.get(self.url + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


MakeWorker = Callable[..., WorkerProcess]


def table(
    name: str,
    topic: str,
    *,
    key: str = "string",
    value: str = "json",
    partitioner: str = "murmur2",
    standbys: int = 1,
    on_error: str = "dead_letter",
) -> str:
    """Return the entry of one table in a tables.yaml; key may be a mapping in YAML's flow style."""
    source = f"{{topic: {topic}, key: {key}, value: {value}, partitioner: {partitioner}, on_error: {on_error}}}"
    return f"  - name: {name}\n    source: {source}\n    standbys: {standbys}\n"


def tables(*entries: str) -> str:
    """Return the text of a tables.yaml."""
    return "tables:\n" + "".join(entries)


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[MakeWorker]:
    """Make workers that end with the test; each call takes what WorkerProcess takes, without the folder.

    When the test fails, pytest shows the ends of their logs, which are printed here at its end.
    """
    made: list[WorkerProcess] = []

    def make(bootstrap: str, tables: str, *, group: str, **settings: str) -> WorkerProcess:
        worker = WorkerProcess(tmp_path / f"worker-{len(made) + 1}", bootstrap, tables, group=group, **settings)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()
    for worker in made:
        worker.print_log()


async def all_ready(*workers: WorkerProcess) -> None:
    """Wait until every worker is ready."""
    await asyncio.gather(*(worker.wait_ready() for worker in workers))
