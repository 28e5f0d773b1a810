"""Translates errors of RocksDB and the operating system into StoreErrors.

rocksdict raises a plain Exception with RocksDB's status as its text, such as
"IO error: While open a file for random read: /data/shards/t-0/000008.sst: Too many open files".
Statuses can be nested ("Corruption: Corruption: IO error: ..."), and the text has paths and thus topic names.
"""

import errno
import os
from pathlib import Path

from rocksdict import DbClosedError

from tablehouse.stores.store import StoreClosed, StoreCorrupt, StoreError

#: The operating system's messages for a file that RocksDB has written and that no longer exists as a file.
_OWN_FILE_GONE = tuple(os.strerror(code) for code in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR))


def to_store_error(error: Exception, what: str, path: Path) -> StoreError:
    """Return the StoreError for an error of the operation `what` on the store in `path`.

    StoreCorrupt requires a rebuild, so it is only used for errors that RocksDB found in its own files. Any other error
    of the operating system (no space, no file handles, a held lock, no permission, a read-only or failing disk) leaves
    the content intact, even if RocksDB reports it as a corruption.
    """
    if isinstance(error, DbClosedError):
        return StoreClosed(f"{what}: the store is closed")
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" ({error.filename})"
        return StoreError(f"{what}: {error.strerror or error}{where}")
    text = str(error)
    said = text.replace(str(path), "")
    refused = "IO error:" in said
    damage = any(reason in said for reason in _OWN_FILE_GONE) if refused else said.startswith("Corruption:")
    return (StoreCorrupt if damage else StoreError)(f"{what}: {text}")
