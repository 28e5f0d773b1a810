"""The number of records of a key since its last tombstone."""

from collections.abc import Mapping

from tablehouse.folds.fold import FoldRecord, Rows
from tablehouse.stores.rows import Row


class Count:
    """Counts the records of a key. A tombstone deletes the row, and counting starts again."""

    name = "count"

    def apply(self, row: Row | None, record: FoldRecord, stream_time: int) -> bytes | None:  # noqa: ARG002
        """See RowFold."""
        if record.payload is None:
            return None
        return b"%d" % (1 if row is None else int(row.payload) + 1)

    def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:  # noqa: ARG002
        """See RowFold."""
        return {}
