"""The number of rows of a task: exact for small tables, for which users compare it."""

from rocksdict import DbClosedError, Rdict, ReadOptions

from tablehouse.stores.rows import ROW_PREFIX, ROWS_END

#: Maximum rows counted one by one, at about 0.2 us each, and maximum deleted ones skipped in between.
COUNTED_ROWS = 10_000

#: Maximum bytes of large rows to count, since counting reads them from their files.
_COUNTED_BYTES = 32 << 20

_KEYS = "rocksdb.estimate-num-keys"
_LARGE_ROWS = "rocksdb.live-blob-file-size"


class RowCount:
    """The number of rows of one column family.

    RocksDB's own estimate counts overwritten rows and checkpoints again until they are compacted.
    """

    def __init__(self) -> None:
        self._written = True
        #: The last count; None if there were too many rows.
        self._counted: int | None = None
        #: RocksDB's estimate when there were too many; they are not counted again until it has halved.
        self._many: int | None = None

    def changed(self) -> None:
        """Record that rows were written or deleted."""
        self._written = True

    def estimate(self, family: Rdict) -> int:
        """Return the last count, or RocksDB's estimate if there were too many rows to count."""
        if self._counted is not None:
            return self._counted
        try:
            keys = family.property_int_value(_KEYS) or 0
        except DbClosedError:
            # Another thread is closing it.
            return 0
        # The checkpoint is also a key.
        return max(0, keys - 1)

    def count(self, family: Rdict) -> bool:
        """Count the rows, in at most 2 ms, unless they have not changed since the last count or are too many.

        Return whether they were counted.
        """
        if not self._written:
            return False
        try:
            keys = family.property_int_value(_KEYS) or 0
            if self._many is not None and keys > self._many // 2:
                return False
            self._written = False
            small = (family.property_int_value(_LARGE_ROWS) or 0) <= _COUNTED_BYTES
            self._counted = _count_rows(family) if small else None
        except DbClosedError:
            return False
        self._many = max(keys, COUNTED_ROWS) if self._counted is None else None
        return True


def _count_rows(family: Rdict) -> int | None:
    """Return the number of rows; None if there are too many to count."""
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
    except Exception:  # noqa: BLE001 - rocksdict has no narrower class; too many deleted rows, or an error that a read will report
        return None
    return rows
