"""Writes log lines in a separate thread, so that the worker does not wait for a slow or stopped reader."""

import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

import structlog

#: Maximum characters that wait to be written; further lines are dropped.
MAX_WAITING_CHARACTERS = 1024 * 1024

#: Maximum characters per write, unless a single line is longer.
_CHARACTERS_PER_WRITE = 32 * 1024


class LogPipe(io.TextIOBase):
    """A text stream over a file descriptor whose writes never block.

    Only whole lines are written. Lines that do not fit are dropped; once there is space again, a log line has their
    number. on_drop is called with the number of dropped lines, in the thread that called write().
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    on_drop: Callable[[int], None]

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.on_drop = lambda _lines: None
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._begun = ""
        self._lines: deque[str] = deque()
        self._waiting = 0
        self._dropped = 0
        self._is_writing = False
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def write(self, text: str) -> int:
        """Accept text, which is written once it ends with a line break."""
        dropped = 0
        with self._changed:
            self._begun += text
            if self._begun.endswith("\n") or len(self._begun) > MAX_WAITING_CHARACTERS:
                if self._waiting + len(self._begun) > MAX_WAITING_CHARACTERS:
                    dropped = max(1, self._begun.count("\n"))
                    self._dropped += dropped
                else:
                    self._lines.append(self._begun)
                    self._waiting += len(self._begun)
                self._begun = ""
                self._changed.notify_all()
        if dropped:
            self.on_drop(dropped)
        return len(text)

    def finish(self, seconds: float) -> None:
        """Wait until everything is written, for at most `seconds`."""
        until = monotonic() + seconds
        with self._changed:
            while self._lines or self._is_writing:
                left = until - monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the file descriptor, which faulthandler writes to."""
        return self._descriptor

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                chunk = self._lines.popleft()
                while self._lines and len(chunk) + len(self._lines[0]) <= _CHARACTERS_PER_WRITE:
                    chunk += self._lines.popleft()
                self._is_writing = True
            self._write(chunk.encode("utf-8", "backslashreplace"))
            with self._changed:
                self._waiting -= len(chunk)
                dropped, self._dropped = self._dropped, 0
            if dropped:
                structlog.get_logger("log").warning("log lines were dropped, since nothing read them", lines=dropped)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                # The reader is gone, or the disk is full; the next write may succeed.
                return
