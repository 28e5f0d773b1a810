"""How a worker's process meets signals, and a log that nobody reads."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, produce, unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, table, tables


@contextmanager
def inherited(number: signal.Signals, how: signal.Handlers) -> Iterator[None]:
    """Have processes that are started meanwhile begin with a signal ignored, or not."""
    before = signal.signal(number, how)
    try:
        yield
    finally:
        signal.signal(number, before)


async def new_worker(kafka: EmbeddedKafka, make_worker: MakeWorker, **settings: str) -> WorkerProcess:
    topic = unique("planes")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b'{"n":1}', None)])
    return make_worker(kafka.bootstrap_servers, tables(table("t", topic)), group=unique("signals"), **settings)


@pytest.mark.parametrize("ignored", [signal.SIG_DFL, signal.SIG_IGN])
async def test_a_hangup_stops_a_worker_as_sigterm_does_unless_it_was_ignored_at_the_start(
    kafka: EmbeddedKafka, make_worker: MakeWorker, ignored: signal.Handlers
) -> None:
    worker = await new_worker(kafka, make_worker)
    # A script's background process has SIGINT ignored too.
    with inherited(signal.SIGHUP, ignored), inherited(signal.SIGINT, signal.SIG_IGN):
        worker.start()
    await worker.wait_active()
    # What Faust does with these would show every variable, or stop it in a debugger.
    os.kill(worker.pid, signal.SIGUSR1)
    os.kill(worker.pid, signal.SIGUSR2)
    os.kill(worker.pid, signal.SIGHUP)
    if ignored is signal.SIG_IGN:
        assert (await worker.get("/tables/t/k")).body == b'{"n":1}'
        assert "stopping" not in worker.log_text()
        os.kill(worker.pid, signal.SIGINT)
    assert await worker.wait_exit() == 0
    how = "SIGINT" if ignored is signal.SIG_IGN else "SIGHUP"
    said = worker.log_text()
    assert f"signal={how}" in said
    assert "stopped" in said
    assert "LOCAL VARIABLES" not in said


async def test_a_worker_whose_log_nobody_reads_answers_on_and_stops(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    worker = await new_worker(kafka, make_worker, log_level="debug")
    os.mkfifo(worker.log_file)
    unread = os.open(worker.log_file, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(unread, fcntl.F_SETPIPE_SZ, 4096)
    seen: list[int] = []
    try:
        worker.start()
        await worker.wait_active()

        async def fills() -> bool:
            for _ in range(50):
                assert (await worker.get("/tables/t/k")).body == b'{"n":1}'
            pending = bytearray(4)
            fcntl.ioctl(unread, 0x541B, pending)  # FIONREAD
            seen.append(int.from_bytes(pending, "little"))
            # The next lines do not fit, however many bytes are left, so they wait.
            return seen[-1] > 0 and len(seen) > 2 and len(set(seen[-3:])) == 1

        await until(fills, "the pipe is full")
        for _ in range(300):
            assert (await worker.get("/tables/t/k")).body == b'{"n":1}'
        assert await worker.metric("tablehouse_event_loop_lag_seconds_count") > 0
        worker.terminate()
        assert await worker.wait_exit() == 0
    finally:
        worker.log_file.unlink()
        os.close(unread)
