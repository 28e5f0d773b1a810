"""Flame graphs of a worker that ingests, restores and answers reads: `python -m bench.flames [FOLDER]`.

Needs py-spy beside this Python. Time that threads wait is left out, so a width is a share of CPU.
"""

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from app.demo.broker import EmbeddedKafka
from app.errors import SetupError
from bench.figures import Figures
from bench.load import closed_loop
from bench.machine import divide_cores
from bench.measurements.reads import asked
from bench.peers.peer import running, until_caught_up
from bench.setting import CONNECTIONS, Setting
from bench.source import Topics

_RECORDS = 2_000_000
_SAMPLES_A_SECOND = 200
_SECONDS = 10.0


@asynccontextmanager
async def _flame(pid: int, file: Path) -> AsyncIterator[None]:
    """Sample a process meanwhile; `file` ends in .svg, and beside it lie the collapsed stacks."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise SetupError(f"there is no py-spy beside {sys.executable}: pip install py-spy")
    options = ["--pid", str(pid), "--rate", str(_SAMPLES_A_SECOND), "--native", "--nonblocking"]
    formats = {"flamegraph": file, "raw": file.with_suffix(".txt")}
    started = [
        await asyncio.create_subprocess_exec(
            spy, "record", *options, "--format", name, "--output", str(path), stdout=subprocess.DEVNULL
        )
        for name, path in formats.items()
    ]
    try:
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            await process.wait()


async def _measure(setting: Setting, folder: Path) -> None:
    produced = await setting.topics.provide(setting.source)
    async with running(setting.worker(produced.source.topic)) as worker:
        async with _flame(worker.pid, folder / "flame-ingest.svg"):
            await until_caught_up(worker, produced.source.records)
        async with _flame(worker.pid, folder / "flame-reads.svg"):
            await closed_loop(worker.port, asked(produced.source), connections=CONNECTIONS, seconds=_SECONDS)
        await worker.stop()
        worker.wipe()
        worker.start()
        async with _flame(worker.pid, folder / "flame-restore.svg"):
            await until_caught_up(worker, produced.source.records)


def main() -> None:
    """Write the flame graphs."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "bench/results")
    folder.mkdir(parents=True, exist_ok=True)
    cores = divide_cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as data, EmbeddedKafka(Path(data) / "kafka") as kafka:
        bootstrap = kafka.bootstrap_servers
        setting = Setting(bootstrap, Path(data), cores, Topics(bootstrap), Figures(), _RECORDS, 1, _SECONDS)
        uvloop.run(_measure(setting, folder))


if __name__ == "__main__":
    main()
