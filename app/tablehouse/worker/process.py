"""The process of a worker: sets up signals, files, memory, log and event loop, then runs the worker."""

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

#: The option of glibc's mallopt() for the minimum size of allocations that are mapped separately (malloc.h), and that
#: size. Fetches and batches of common rows are smaller.
_M_MMAP_THRESHOLD = -3
_LARGE_ALLOCATION_BYTES = 4 << 20

#: Seconds that an ending worker waits until its last log lines are written.
_LOG_TIMEOUT_SECONDS = 1.0


def run_worker(settings: Settings) -> int:
    """Run one worker in this process until it is told to stop, and return the exit code.

    Raises SetupError if it cannot run as configured.
    """
    # Until Faust installs its handlers, the first process of a container would ignore this signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = LogPipe(sys.stderr.fileno())
    sys.stderr = log
    atexit.register(log.finish, _LOG_TIMEOUT_SECONDS)
    os.umask(UMASK)
    files = _allow_many_files()
    _return_large_memory()
    catalog = load_catalog(settings.tables)
    directory = DataDirectory.acquire(settings.data_dir)
    configure_logging(
        settings.log_format, settings.log_level, directory.worker_id, quiet=(*QUIET, "httpx"), is_expected=is_expected
    )
    log_uncaught()
    # Before Faust is imported, since it creates objects on the current loop.
    asyncio.set_event_loop(uvloop.new_event_loop())
    # Imported here so that `check` and `--help` do not load Kafka's clients.
    from tablehouse.worker.assembly import assemble  # noqa: PLC0415

    assembled = assemble(settings, catalog, directory, files)
    log.on_drop = assembled.metrics.log_lines_dropped.inc
    return assembled.run()


def _allow_many_files() -> int:
    """Raise this process's limit of open files to the maximum, and return it.

    Every connection and every SST is an open file. Many systems start with 1,024, because some programs cannot handle
    more.
    """
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
    return sys.maxsize if maximum == resource.RLIM_INFINITY else maximum


def _return_large_memory() -> None:
    """Make the C library return the memory of large rows to the system as soon as it is freed.

    glibc does so at first, but then raises its threshold to up to 32 MiB as large blocks are freed: after a few rows of
    10 MB, a worker took 100 MiB more than it used. Other C libraries have no such setting.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_ALLOCATION_BYTES)
