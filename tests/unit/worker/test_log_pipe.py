import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tablehouse.worker.log_pipe import MAX_WAITING_CHARACTERS, LogPipe

_MIN_PIPE_BYTES = 4096
_DEADLINE = 120.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _MIN_PIPE_BYTES)
    yield reading, writing
    os.close(reading)


def read(reading: int, until: bytes) -> bytes:
    """Read up to some bytes."""
    found = b""
    while until not in found:
        found += os.read(reading, 65536)
    return found


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    log = LogPipe(writing)
    for number in range(50):
        print(f"line {number} \udce9", file=log, flush=True)  # as structlog does
    log.finish(_DEADLINE)
    lines = read(reading, b"line 49").decode().splitlines()
    assert lines == [f"line {number} \\udce9" for number in range(50)]


def test_writes_do_not_wait_for_a_reader_and_what_does_not_fit_is_dropped_and_told(
    pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = pipe
    log, dropped = LogPipe(writing), 0

    def drop(lines: int) -> None:
        nonlocal dropped
        dropped += lines

    log.on_drop = drop
    line, count = "x" * 99, 3 * MAX_WAITING_CHARACTERS // 100
    for _ in range(count):
        print(line, file=log, flush=True)
    assert dropped > 0
    log.finish(0.01)
    kept = count - dropped
    assert kept * 100 <= MAX_WAITING_CHARACTERS
    written = b""
    while written.count(b"\n") < kept:
        written += os.read(reading, 65536)
    assert written == (line.encode() + b"\n") * kept
    log.finish(_DEADLINE)
    print("again", file=log)
    assert read(reading, b"\n") == b"again\n"
    # Told by the log itself, which is not this pipe here.
    out = capsys.readouterr().out
    assert "log lines were dropped" in out
    assert f"lines={dropped}" in out


def test_a_reader_that_has_gone_ends_nothing(pipe: tuple[int, int]) -> None:
    _, writing = pipe
    reading, other = os.pipe()
    log = LogPipe(other)
    os.close(reading)
    for _ in range(3):
        print("line", file=log)
        log.finish(_DEADLINE)
    os.close(writing)


def test_many_threads_write_whole_lines(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    log = LogPipe(writing)
    threads = [
        threading.Thread(target=lambda name=name: [log.write(f"{name * 30}\n") for _ in range(200)]) for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    written = b""
    while written.count(b"\n") < 800:
        written += os.read(reading, 65536)
    for thread in threads:
        thread.join()
    assert all(line == line[:1] * 30 for line in written.splitlines())


#: Fills the pipe that nobody reads and is then to end by its deadline while something hangs, or by itself.
_ENDING = """
import atexit, sys, time
from tablehouse.kafka.faust_worker import _end_after
from tablehouse.worker.log_pipe import LogPipe
sys.stderr = log = LogPipe(sys.stderr.fileno())
atexit.register(log.finish, 0.1)
for _ in range(100_000):
    print("a line that nobody reads", file=sys.stderr)
if sys.argv[1] == "hang":
    _end_after(0.2)
    time.sleep(600)
raise LookupError("that nobody reads")
"""


#: At its deadline it ends with 1 if what is left of the pipe takes the traceback, else by the signal.
@pytest.mark.parametrize(("how", "codes"), [("hang", {1, -signal.SIGALRM}), ("fail", {1})], ids=["hang", "fail"])
def test_a_process_ends_though_nobody_reads_what_it_says(how: str, codes: set[int]) -> None:
    with subprocess.Popen([sys.executable, "-c", _ENDING, how], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(_DEADLINE) in codes
        finally:
            process.kill()
