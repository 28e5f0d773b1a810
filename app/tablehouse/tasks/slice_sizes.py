"""How many rows of a table are read in one slice of work, based on the size of its rows so far."""

from collections.abc import Callable

#: Maximum rows, at about 2 us each, and bytes that are read in one slice of work; other readers wait for it. Bytes are
#: estimated from the rows of earlier slices. A table whose row size is unknown begins with a few rows.
ROWS_PER_SLICE = 256
BYTES_PER_SLICE = 256 * 1024
FIRST_ROWS = 16

#: Seconds after which a slice of work ends whose rows are checked against a condition or projected: that can take long.
SECONDS_PER_SLICE = 0.002


def slice_end(clock: Callable[[], float]) -> Callable[[], bool]:
    """Return whether the time of a slice of work that begins now is up."""
    until = clock() + SECONDS_PER_SLICE
    return lambda: clock() >= until


class SliceSizes:
    """The number of rows in a slice, by table."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def rows(self, table: str) -> int:
        """Return the maximum number of rows in the next slice, at least one."""
        return self._rows.get(table, FIRST_ROWS)

    def learn(self, table: str, rows: int, size: int) -> None:
        """Record that a slice of some rows, or keys, had `size` bytes."""
        fitting = BYTES_PER_SLICE * rows // max(1, size)
        self._rows[table] = max(1, min(ROWS_PER_SLICE, 4 * self.rows(table), fitting))
