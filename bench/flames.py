"""Flame graphs of a worker that ingests, restores and answers reads: `python -m bench.flames`.

Needs py-spy beside this Python. Samples are of whoever holds the GIL, so a width is a share of the CPU that the event
loop has; RocksDB's own threads are not in it.
"""

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import click
import uvloop

from bench.figures import Figures
from bench.load import closed_loop
from bench.machine import divide_cores
from bench.measurements.reads import asked
from bench.peers.peer import running, until_caught_up
from bench.peers.tablehouse import Tablehouse
from bench.setting import CONNECTIONS, Setting
from bench.source import Topics
from tablehouse.errors import SetupError
from tablehouse.testing.kafka import EmbeddedKafka

_RECORDS = 2_000_000
_SAMPLES_PER_SECOND = 200
_SECONDS = 10.0


@asynccontextmanager
async def _flame(pid: int, file: Path) -> AsyncIterator[None]:
    """Sample a process meanwhile, native frames included; the file's ending says the format, svg or txt."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise SetupError(f"there is no py-spy beside {sys.executable}: pip install py-spy")
    what = "flamegraph" if file.suffix == ".svg" else "raw"
    options = ["--pid", str(pid), "--rate", str(_SAMPLES_PER_SECOND), "--native", "--gil"]
    process = await asyncio.create_subprocess_exec(
        spy, "record", *options, "--format", what, "--output", str(file), stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        await process.wait()
    # It writes its own command line into the picture, and where it is installed is nobody's business.
    await asyncio.to_thread(_replace, file, spy, "py-spy")


def _replace(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")


async def _up(worker: Tablehouse) -> None:
    """Wait until a worker listens: py-spy cannot attach to a program that is about to become another one."""
    while await worker.progress() is None:  # noqa: ASYNC110 - another process, so there is no event to wait for
        await asyncio.sleep(0.05)


async def _measure(setting: Setting, folder: Path, ending: str) -> None:
    produced = await setting.topics.provide(setting.source)
    async with running(setting.worker(produced.source.topic)) as worker:
        await _up(worker)
        async with _flame(worker.pid, folder / f"flame-ingest.{ending}"):
            await until_caught_up(worker, produced.source.records)
        async with _flame(worker.pid, folder / f"flame-reads.{ending}"):
            await closed_loop(worker.port, asked(produced.source), connections=CONNECTIONS, seconds=_SECONDS)
        await worker.stop()
        worker.wipe()
        worker.start()
        await _up(worker)
        async with _flame(worker.pid, folder / f"flame-restore.{ending}"):
            await until_caught_up(worker, produced.source.records)


@click.command(help="Write flame-ingest, flame-reads and flame-restore into FOLDER.")
@click.argument("folder", type=click.Path(path_type=Path), default="bench/results")
@click.option("--text", is_flag=True, help="Collapsed stacks as text, for other tools, and no SVG.")
def main(folder: Path, *, text: bool) -> None:
    """Write the flame graphs."""
    folder.mkdir(parents=True, exist_ok=True)
    cores = divide_cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as data, EmbeddedKafka(Path(data) / "kafka") as kafka:
        bootstrap = kafka.bootstrap_servers
        setting = Setting(bootstrap, Path(data), cores, Topics(bootstrap), Figures(), _RECORDS, 1, _SECONDS)
        uvloop.run(_measure(setting, folder, "txt" if text else "svg"))


if __name__ == "__main__":
    main()
