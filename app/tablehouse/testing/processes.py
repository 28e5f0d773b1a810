"""Child processes and the ports they listen on."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from tablehouse.errors import SetupError

_TIED = Path(__file__).with_name("tied.py")

# Below the range from which Linux (32768 and up) and macOS (49152 and up) take the ports of outgoing connections:
# otherwise a client that keeps trying a killed broker's port could get that same port as its own and block a restart.
_PORTS = range(20_000, 32_000)

# Linux ends a tied child when the thread that started it ends, not the process. So one thread, which lives as long as
# the process, starts all children.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")

#: The ports recently returned to this process.
_given_out: deque[int] = deque(maxlen=1000)


class Service(ABC):
    """A service that runs while its context lasts."""

    @abstractmethod
    def start(self) -> None:
        """Start it and return once it can be used; raises SetupError with nothing left running."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it, cleanly within a few seconds or else with SIGKILL."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def spawn(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program (an absolute path and its arguments) that ends with this process.

    Its output is appended to `log`. It gets a separate process group, so that Ctrl-C in the terminal only reaches this
    process, which then ends its children in the right order.
    """
    tied = [sys.executable, "-I", "-S", str(_TIED), str(os.getpid()), *command]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603  the programs are ours
                tied, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, process_group=0
            )

    return _starter.submit(start).result()


def end(processes: Iterable[subprocess.Popen[bytes]], *, grace: float) -> None:
    """Send SIGTERM to all, wait up to `grace` seconds in total, then send SIGKILL. Paused ones are resumed."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + grace
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def keep_libraries_quiet() -> None:
    """Disable the logs of Kafka clients: the demo reports what matters itself."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def leave_by_ctrl_c() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that `finally` blocks run at every exit.

    Shells make background processes of scripts (`&`) ignore SIGINT; this call restores it. An ignored SIGHUP stays
    ignored, as under nohup.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: signal.raise_signal(signal.SIGINT))


def last_lines(log: Path, count: int = 20) -> str:
    """Return the last `count` lines of a log, indented for an error message."""
    with contextlib.suppress(FileNotFoundError):
        lines = log.read_text("utf-8", errors="replace").splitlines()[-count:]
        if lines:
            return "\n".join(f"    {line}" for line in lines)
    return "    (nothing was written)"


def free_port() -> int:
    """Return a free port of 127.0.0.1, a different one each time."""
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        # A port that was returned before may be about to be bound.
        if port not in _given_out and port_is_free(port):
            _given_out.append(port)
            return port
    raise SetupError(f"no free port found on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop - 1}")


def port_is_free(port: int) -> bool:
    """Return whether this port of 127.0.0.1 is free."""
    with socket.socket() as probe:
        # As servers do: recently closed connections on this port do not make it busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True
