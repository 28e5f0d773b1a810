"""The demo's folder: `.demo` in the current directory, for one demo at a time."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tablehouse.errors import DataDirectoryError

_LOCK = "lock"


@contextmanager
def demo_folder(path: Path, *, wipe: bool) -> Iterator[Path]:
    """Create the folder, lock it for this process, and empty it first if `wipe`.

    Raises DataDirectoryError if another demo uses it, or if it is not empty and not a demo folder.
    """
    lock = path / _LOCK
    if path.exists() and not lock.exists() and any(path.iterdir()):
        raise DataDirectoryError(
            f"{path.absolute()} is not the demo's folder (it has no file {_LOCK!r}), and the demo would empty it: "
            "move it away, or run the demo from another directory"
        )
    path.mkdir(exist_ok=True)
    with lock.open("w") as file:  # the lock is released with the process, even if it is killed
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirectoryError(
                f"{path.absolute()} is in use by another demo: end that one, or run this one from another directory"
            ) from error
        if wipe:
            for entry in path.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry != lock:
                    entry.unlink()
        yield path
