"""Real failures of the operating system, which root meets too: this process's own limits."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _lowered(limit: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(limit, (soft, hard))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Refuse to write beyond `size` bytes into a file, with EFBIG: like a full disk, for all but small files."""
    with _lowered(resource.RLIMIT_FSIZE, size):
        yield


@contextmanager
def free_file_handles(count: int) -> Iterator[None]:
    """Refuse to open more than `count` files, with EMFILE."""
    # The lowest numbers are given out first, so the limit lies above the count-th that is free.
    free = [os.open("/dev/null", os.O_RDONLY) for _ in range(count + 1)]
    for handle in free:
        os.close(handle)
    with _lowered(resource.RLIMIT_NOFILE, free[-1]):
        yield


@contextmanager
def few_open_files(count: int) -> Iterator[None]:
    """Have what is started meanwhile begin with a limit of so many open files, which it may raise."""
    with _lowered(resource.RLIMIT_NOFILE, count):
        yield
