"""The plain table: the latest record of a key is its row, and a tombstone deletes it."""

from collections.abc import Sequence

from app.folds.fold import Decoded, Lookup
from app.stores.rows import LAYOUT_VERSION, pack_head


class Upsert:
    """The latest value per key; never looks an earlier row up."""

    name = "upsert"

    def __call__(self, records: Sequence[Decoded], lookup: Lookup) -> dict[bytes, bytes | None]:  # noqa: ARG002
        """Return the last row of each key in the batch."""
        return {
            key: None if payload is None else pack_head(LAYOUT_VERSION, 0, timestamp_ms, offset) + payload
            for key, payload, timestamp_ms, offset in records
        }
