"""How many rows a task has: exactly while there are few, which is when people check it."""

from rocksdict import DbClosedError, Rdict, ReadOptions

from tablehouse.stores.rows import ROW_PREFIX, ROWS_END

#: Rows that are counted one by one, at about 0.2 us each, and deleted ones that are passed over on the way.
COUNTED_ROWS = 10_000

#: Large rows are read from their files as they are counted. More bytes than this are not.
_COUNTED_BYTES = 32 << 20

_KEYS = "rocksdb.estimate-num-keys"
_LARGE_ROWS = "rocksdb.live-blob-file-size"


class RowCount:
    """The number of rows of one column family.

    RocksDB's own estimate counts a row again for each time it was overwritten, and the checkpoint too, until they are
    compacted.
    """

    def __init__(self) -> None:
        self._written = True
        #: What was counted last; None where there were too many to count.
        self._counted: int | None = None
        #: RocksDB's estimate when there were too many; as long as it has not halved, they are not counted again.
        self._many: int | None = None

    def changed(self) -> None:
        """Record that rows were written or deleted."""
        self._written = True

    def estimate(self, family: Rdict) -> int:
        """Return what was counted last, or RocksDB's estimate where there were too many rows to count."""
        if self._counted is not None:
            return self._counted
        try:
            keys = family.property_int_value(_KEYS) or 0
        except DbClosedError:
            # A thread is closing it.
            return 0
        # The checkpoint is a key too.
        return max(0, keys - 1)

    def count(self, family: Rdict) -> bool:
        """Count the rows, which takes 2 ms at most, unless none were written since the last time or there are too many.

        Return whether that was done.
        """
        if not self._written:
            return False
        try:
            keys = family.property_int_value(_KEYS) or 0
            if self._many is not None and keys > self._many // 2:
                return False
            self._written = False
            small = (family.property_int_value(_LARGE_ROWS) or 0) <= _COUNTED_BYTES
            self._counted = _counted(family) if small else None
        except DbClosedError:
            return False
        self._many = max(keys, COUNTED_ROWS) if self._counted is None else None
        return True


def _counted(family: Rdict) -> int | None:
    """Return the number of rows; None where there are too many to count."""
    options = ReadOptions()
    options.set_max_skippable_internal_keys(COUNTED_ROWS)
    options.set_iterate_upper_bound(ROWS_END)
    rows = 0
    iterator = family.iter(options)
    iterator.seek(ROW_PREFIX)
    while iterator.valid():
        rows += 1
        if rows > COUNTED_ROWS:
            return None
        iterator.next()
    try:
        iterator.status()
    except Exception:  # noqa: BLE001 - rocksdict has no narrower one; too many deleted rows, or what a read will report
        return None
    return rows
