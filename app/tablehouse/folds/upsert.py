"""The plain table: the latest record of a key is its row, and a tombstone deletes it."""

from collections.abc import Sequence

from tablehouse.folds.fold import Decoded, Lookup, Slice
from tablehouse.stores.rows import DELETED, LAYOUT_VERSION, pack_head


class Upsert:
    """The latest value per key; never looks up an earlier row."""

    name = "upsert"

    def __call__(
        self,
        records: Sequence[Decoded],
        lookup: Lookup,  # noqa: ARG002
        around: Slice,  # noqa: ARG002
    ) -> dict[bytes, bytes | None]:
        """Return the last row of each key in the batch."""
        return {
            key: None if payload is None else pack_head(LAYOUT_VERSION, 0, timestamp_ms, offset) + payload
            for key, payload, timestamp_ms, offset in records
        }


class MarkedUpsert:
    """The latest value per key of a partition; a tombstone leaves a mark with its timestamp.

    It is for keys with records in several partitions: the mark hides older values in the other partitions.
    """

    name = "marked_upsert"

    def __call__(
        self,
        records: Sequence[Decoded],
        lookup: Lookup,  # noqa: ARG002
        around: Slice,  # noqa: ARG002
    ) -> dict[bytes, bytes | None]:
        """Return the last row, or mark, of each key in the batch."""
        return {
            key: pack_head(LAYOUT_VERSION, DELETED, timestamp_ms, offset)
            if payload is None
            else pack_head(LAYOUT_VERSION, 0, timestamp_ms, offset) + payload
            for key, payload, timestamp_ms, offset in records
        }
