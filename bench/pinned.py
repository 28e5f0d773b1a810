"""Run as a script: becomes another program that runs on some cores only.

    python -I -S pinned.py 0,1 PROGRAM ARGUMENT...

From its first instruction on, because a JVM counts its processors once, at start.
"""

import os
import sys


def main() -> None:
    """Take the cores, then become PROGRAM (the same process id)."""
    os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  the caller names the program


if __name__ == "__main__":
    main()
