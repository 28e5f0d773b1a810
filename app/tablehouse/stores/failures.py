"""What RocksDB and the operating system say when something fails, and which StoreError that is.

rocksdict raises a plain Exception with RocksDB's status as its text, such as
"IO error: While open a file for random read: /data/shards/t-0/000008.sst: Too many open files".
Statuses wrap each other ("Corruption: Corruption: IO error: ..."), and the text holds paths, hence names of topics.
"""

import errno
import os
from pathlib import Path

from rocksdict import DbClosedError

from tablehouse.stores.store import StoreClosed, StoreCorrupt, StoreError

#: What the operating system says of a file that RocksDB knows to have written and that is not there as such.
_OWN_FILE_GONE = tuple(os.strerror(code) for code in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR))


def translated(error: Exception, what: str, path: Path) -> StoreError:
    """Return the StoreError for an error met while doing `what` to the store in `path`.

    StoreCorrupt costs a rebuild, so it is only what RocksDB has found in its own files. Whatever else the operating
    system refuses (no space, no file handles, a lock that is held, no permission, a read-only or failing disk) leaves
    the content as good as it was, even where RocksDB suspects its files because of it.
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
