"""The protocols of folds: a fold computes the rows that source records change.

A fold of rows (RowFold) gets one record at a time and does not handle the bytes of rows. `batches.py` turns it into a
Fold, which the owner of a partition calls with all records of a slice and which returns rows as bytes. A fold that
never reads an earlier row may be a Fold itself, as those in upsert.py are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_json
from tablehouse.stores.rows import Row


class Decoded(NamedTuple):
    """A decoded source record: `key` is the prefixed stored key, and `payload` is None for a tombstone."""

    key: bytes
    payload: bytes | None
    timestamp_ms: int
    offset: int


class FoldRecord:
    """A source record as given to a fold of rows, which may read the members of a JSON value."""

    __slots__ = ("_members", "key", "offset", "payload", "timestamp_ms")

    def __init__(self, record: Decoded) -> None:
        self.key, self.payload, self.timestamp_ms, self.offset = record
        self._members: Mapping[str, Any] | None = None

    @property
    def members(self) -> Mapping[str, Any]:
        """Return the members of a JSON value, decoded once; raises DecodeError if it is not a JSON object."""
        if self._members is None:
            value = None if self.payload is None else decode_json(self.payload)
            if not isinstance(value, dict):
                raise DecodeError("it is not a JSON object, so there are no members to aggregate")
            self._members = value
        return self._members


#: Returns the row under a prefixed key after all earlier records; None when there is none.
Rows = Callable[[bytes], Row | None]


class RowFold(Protocol):
    """A fold that works on rows; its caller packs them.

    Stream time is the highest timestamp of the partition's source records so far, in milliseconds, including records
    that cannot become rows; -1 before the first. It is saved with the position, so that it is the same after a restart.

    The result must only depend on the arguments: after a crash the same records are folded again, in other batches and
    on another worker, and have to make the same rows. So a fold uses no clock, no random numbers and no state.
    """

    name: str

    def apply(self, row: Row | None, record: FoldRecord, stream_time: int) -> bytes | None:
        """Return the payload of the key's row after a record; None for no row.

        `row` is the row before the record, and `stream_time` includes the record. May raise DecodeError, or another of
        DECODE_ERRORS, for a record that cannot be folded: it changes no row and is treated as `on_error` says.
        """

    def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:
        """Return the payloads of rows, by prefixed key, that change because stream time has risen to `stream_time`.

        Called at each rise, before the record that caused it is applied, even if that record cannot become a row.
        `rows` looks up the rows before the rise.
        """


#: Returns the bytes of the row under a prefixed key after all earlier records; None when there is none.
Lookup = Callable[[bytes], bytes | None]


class Timed(Protocol):
    """The offset and timestamp of a source record."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102


class Slice(NamedTuple):
    """The context of the records given to a Fold.

    `stream_time` is the stream time before the first record. `source` are all records of the slice in order, including
    those that cannot become rows. `refuse` is called with a record that cannot be folded, and the error.
    """

    stream_time: int
    source: Sequence[Timed]
    refuse: Callable[[Decoded, Exception], None]


class Fold(Protocol):
    """A fold of a slice of records that works on the bytes of rows. Its name is that of its FoldSpec."""

    name: str

    def __call__(self, records: Sequence[Decoded], lookup: Lookup, around: Slice) -> dict[bytes, bytes | None]:
        """Return the final row bytes of every key that the records change, None for a deleted one.

        As for RowFold, the result must only depend on the arguments.
        """
