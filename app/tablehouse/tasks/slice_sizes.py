"""How many rows of a table are read in one slice of work, by how large its rows were so far."""

#: What is read in one slice of work, which is how long other readers wait: rows, at about 2 us each, and bytes of rows,
#: by the average of those before. A table whose rows have an unknown size begins with a few rows.
ROWS_PER_SLICE = 256
BYTES_PER_SLICE = 256 * 1024
FIRST_ROWS = 16


class SliceSizes:
    """The rows of a slice, by table."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def rows(self, table: str) -> int:
        """Return how many rows the next slice has at most, at least one."""
        return self._rows.get(table, FIRST_ROWS)

    def learn(self, table: str, rows: int, size: int) -> None:
        """Record that a slice of some rows, or keys, had `size` bytes."""
        fitting = BYTES_PER_SLICE * rows // max(1, size)
        self._rows[table] = max(1, min(ROWS_PER_SLICE, 4 * self.rows(table), fitting))
