"""Run as a script: becomes another program that ends when its parent process ends.

    python -I -S tied.py PARENT_PID PROGRAM ARGUMENT...

On Linux the kernel guarantees this (PR_SET_PDEATHSIG), even if the parent was killed with SIGKILL; elsewhere the
program simply runs. This is a separate script because the request must be made in the child, and Python code run
between fork and exec (`preexec_fn`) can deadlock in a parent with threads. It imports nothing of the project, so that
it only takes a few milliseconds.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to PARENT_PID, then become PROGRAM (the same process id)."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the request, so nothing would ever end this process
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  the caller names the program


if __name__ == "__main__":
    main()
