"""The encoding of a row and its key, the same in the store, in the changelog and on every replica.

A row is a fixed header and the payload:

    layout version   u8      1
    flags            u8      bit 0: the mark of a deleted key, without a payload; other bits are reserved for what a row
                             may carry later (schema id, expiry)
    timestamp        i64     milliseconds since 1970, from the source record
    source offset    i64     the source record that made the row
    payload          the rest, in the table's value format

All integers are big-endian. A key is one byte for the kind of record, followed by the stored key if it is a row. Any
change of this layout makes every store and changelog unreadable, so it requires a new layout version.
"""

import struct
from collections.abc import Sequence

import msgspec

LAYOUT_VERSION = 1

_HEAD = struct.Struct(">BBqq")

#: The flag of a deletion mark, in tables that need the time of a deletion.
DELETED = 0x01

#: Packs the head of a row: `pack_head(LAYOUT_VERSION, flags, timestamp_ms, offset) + payload` is a row.
pack_head = _HEAD.pack

#: Bytes that a row adds to its payload.
HEAD_SIZE = _HEAD.size

#: Prefix of every stored key. Keys with another first byte are reserved for the engine's own records.
ROW_PREFIX = b"\x01"

#: Above every row, and the first key that a record of another prefix can have.
ROWS_END = b"\x02"

#: The first bytes of a row of this layout.
_BEGINNING = bytes((LAYOUT_VERSION, 0))


def row_bounds(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """Narrow bounds of prefixed keys to those that rows can have."""
    return max(start, ROW_PREFIX), min(end, ROWS_END)


class RowLayoutError(Exception):
    """The bytes are not a row of this layout: the store or the changelog was written by another version."""


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row: `offset` is the offset of its source record, `timestamp_ms` that record's timestamp.

    `deleted` is set for a deletion mark.
    """

    payload: bytes
    timestamp_ms: int
    offset: int
    deleted: bool = False


def unpack(data: bytes) -> Row:
    """Return the row in `data`; raises RowLayoutError for bytes of another layout."""
    if len(data) < HEAD_SIZE:
        raise RowLayoutError(f"a row has at least {HEAD_SIZE} bytes, this has {len(data)}")
    layout, flags, timestamp_ms, offset = _HEAD.unpack_from(data)
    if layout != LAYOUT_VERSION or flags & ~DELETED:
        raise RowLayoutError(
            f"layout {layout} with flags {flags:#x}; known is layout {LAYOUT_VERSION} with flags up to {DELETED:#x}"
        )
    return Row(data[HEAD_SIZE:], timestamp_ms, offset, bool(flags & DELETED))


def payloads(rows: Sequence[bytes | None]) -> list[bytes | None]:
    """Return the payload of each row, None for a missing row or a deletion mark; raises RowLayoutError as unpack().

    For batches: no object is created per row.
    """
    return [
        None
        if row is None
        else row[HEAD_SIZE:]
        if len(row) >= HEAD_SIZE and row.startswith(_BEGINNING)
        else _payload(unpack(row))
        for row in rows
    ]


def count_live(rows: Sequence[bytes]) -> int:
    """Return how many of some rows are not deletion marks; raises RowLayoutError as unpack()."""
    return sum([(len(row) >= HEAD_SIZE and row.startswith(_BEGINNING)) or not unpack(row).deleted for row in rows])


def _payload(row: Row) -> bytes | None:
    return None if row.deleted else row.payload
