"""Applies a fold of rows to the records of a slice: unpacks the rows that it needs, and packs its results."""

from collections.abc import Sequence

from tablehouse.folds.fold import Decoded, FoldRecord, Lookup, RowFold, Slice
from tablehouse.formats.errors import DECODE_ERRORS
from tablehouse.stores.rows import LAYOUT_VERSION, Row, pack_head, unpack


class RowByRow:
    """A Fold that applies a RowFold to one record after another.

    A row has the timestamp and the offset of the record that changed it, which is the one that raised stream time if
    the row changed for that reason.
    """

    def __init__(self, fold: RowFold) -> None:
        self.name = fold.name
        self._fold = fold

    def __call__(self, records: Sequence[Decoded], lookup: Lookup, around: Slice) -> dict[bytes, bytes | None]:
        """Implement Fold."""
        changed: dict[bytes, bytes | None] = {}

        def row_of(key: bytes) -> Row | None:
            data = changed[key] if key in changed else lookup(key)
            row = None if data is None else unpack(data)
            return None if row is None or row.deleted else row

        fold, stream_time = self._fold, around.stream_time
        following = iter(records)
        record = next(following, None)
        for source in around.source:
            timestamp, offset = source.timestamp, source.offset
            if timestamp > stream_time:
                stream_time = timestamp
                for key, payload in fold.pass_time(stream_time, row_of).items():
                    changed[key] = _pack(payload, timestamp, offset)
            if record is None or record.offset != offset:
                continue
            try:
                payload = fold.apply(row_of(record.key), FoldRecord(record), stream_time)
            except DECODE_ERRORS as error:
                around.refuse(record, error)
            else:
                changed[record.key] = _pack(payload, timestamp, offset)
            record = next(following, None)
        return changed


def _pack(payload: bytes | None, timestamp_ms: int, offset: int) -> bytes | None:
    return None if payload is None else pack_head(LAYOUT_VERSION, 0, timestamp_ms, offset) + payload
