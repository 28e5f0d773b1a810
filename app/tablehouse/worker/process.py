"""The process of a worker: its signals, files, memory, log and event loop, which are made ready first."""

import asyncio
import atexit
import ctypes
import os
import resource
import signal
import sys

import uvloop

from tablehouse.catalog.load import load_catalog
from tablehouse.config.settings import Settings
from tablehouse.kafka.log_lines import QUIET, is_expected
from tablehouse.logs import configure_logging, log_uncaught
from tablehouse.stores.data_directory import UMASK, DataDirectory
from tablehouse.worker.log_pipe import LogPipe

#: The option of glibc's mallopt() for the size from which on an allocation is one of the system's own (malloc.h), and
#: that size. Fetches and batches of common rows are smaller.
_M_MMAP_THRESHOLD = -3
_LARGE_ALLOCATION_BYTES = 4 << 20

#: Seconds that a worker that ends waits for its last lines to be read.
_LAST_LINES_SECONDS = 1.0


def run_worker(settings: Settings) -> int:
    """Run one worker in this process until it is told to stop, and return the exit code.

    Raises SetupError when it cannot work as configured.
    """
    # The first process of a container would ignore the signal until Faust has handlers of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = LogPipe(sys.stderr.fileno())
    sys.stderr = log
    atexit.register(log.finish, _LAST_LINES_SECONDS)
    os.umask(UMASK)
    files = _allow_many_files()
    _return_large_memory()
    catalog = load_catalog(settings.tables)
    directory = DataDirectory.acquire(settings.data_dir)
    configure_logging(
        settings.log_format, settings.log_level, directory.worker_id, quiet=(*QUIET, "httpx"), is_expected=is_expected
    )
    log_uncaught()
    # Before Faust is imported, which makes objects on the current loop.
    asyncio.set_event_loop(uvloop.new_event_loop())
    # Imported here so that `check` and `--help` start without Kafka's clients, too.
    from tablehouse.worker.assembly import assemble  # noqa: PLC0415

    assembled = assemble(settings, catalog, directory, files)
    log.on_drop = assembled.metrics.log_lines_dropped.inc
    return assembled.run()


def _allow_many_files() -> int:
    """Raise the limit of open files as far as this process may, and return it.

    Every connection is a file, and so is every SST. Many systems begin with 1,024, for the sake of programs that could
    not do with more.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def _return_large_memory() -> None:
    """Have the C library give the memory of large rows back to the system as soon as they are done with.

    glibc does so at first, and learns from what is freed to keep up to 32 MiB of it: after a few rows of 10 MB a worker
    took 100 MiB more than it used. Other C libraries have no such setting.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_ALLOCATION_BYTES)
