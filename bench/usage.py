"""What a process has used, from /proc."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat, counted after the closing parenthesis of the name.
_USER, _SYSTEM = 11, 12


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds that a process has used in all its threads until a time of the monotonic clock."""

    at: float
    cpu: float


def usage(pid: int) -> Usage:
    """Read the usage of a process, threads that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return Usage(time.monotonic(), (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICK)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")
