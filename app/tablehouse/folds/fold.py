"""What a fold is: it makes the rows that some source records change.

A fold of rows (RowFold) sees one record at a time and knows nothing of the bytes of rows. `batches.py` makes it a Fold,
which is what the owner of a partition calls: all records of a slice at once, and rows as bytes. A fold that never looks
at an earlier row may be a Fold itself, as upsert.py's are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tablehouse.formats.errors import DecodeError
from tablehouse.formats.json_text import decode_json
from tablehouse.stores.rows import Row


class Decoded(NamedTuple):
    """A source record in the table's terms: `payload` is None for a tombstone, `key` the prefixed stored key."""

    key: bytes
    payload: bytes | None
    timestamp_ms: int
    offset: int


class FoldRecord:
    """A source record as a fold of rows sees it, with the members of its value where the fold asks for them."""

    __slots__ = ("_members", "key", "offset", "payload", "timestamp_ms")

    def __init__(self, record: Decoded) -> None:
        self.key, self.payload, self.timestamp_ms, self.offset = record
        self._members: Mapping[str, Any] | None = None

    @property
    def members(self) -> Mapping[str, Any]:
        """Return the members of a JSON value, decoded once; raises DecodeError where it is no JSON object."""
        if self._members is None:
            value = None if self.payload is None else decode_json(self.payload)
            if not isinstance(value, dict):
                raise DecodeError("it is not a JSON object, so there are no members to aggregate")
            self._members = value
        return self._members


#: Returns the row under a prefixed key as all earlier records left it, None when there is none.
Rows = Callable[[bytes], Row | None]


class RowFold(Protocol):
    """A fold that works on rows; its caller packs them.

    Stream time is the highest timestamp of the partition's source records so far, in milliseconds, -1 before the first.
    Records that cannot become rows count too. It is saved with the position, so that it is the same after a restart.

    What a fold returns may depend on its arguments alone: the same records are folded again after a crash, in other
    batches and on another worker, and have to make the same rows. So no fold has a clock, a random number or a state.
    """

    name: str

    def apply(self, row: Row | None, record: FoldRecord, stream_time: int) -> bytes | None:
        """Return the payload of the key's row after a record, None for no row.

        `row` is the row before it, and `stream_time` counts the record in. May raise DecodeError, or another of
        DECODE_ERRORS, about the record, which then changes no row and is a bad record of the table.
        """

    def pass_time(self, stream_time: int, rows: Rows) -> Mapping[bytes, bytes | None]:
        """Return the payloads of rows, by prefixed key, that change because stream time has risen to `stream_time`.

        Called with each rise, before the record that caused it is applied, and also where that record cannot become a
        row. `rows` looks up rows as they were before.
        """


#: Returns the row bytes under a prefixed key as all earlier records left it, None when there is none.
Lookup = Callable[[bytes], bytes | None]


class Timed(Protocol):
    """A source record of which only its place and time count."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102


class Slice(NamedTuple):
    """What surrounds the records given to a Fold.

    `stream_time` is that before the first of them. `source` are all records of the slice in order, those included that
    cannot become rows. `refuse` is told of a record that cannot be folded, and why.
    """

    stream_time: int
    source: Sequence[Timed]
    refuse: Callable[[Decoded, Exception], None]


class Fold(Protocol):
    """A fold of a slice of records, on the bytes of rows. Its name is that of the FoldSpec it was made from."""

    name: str

    def __call__(self, records: Sequence[Decoded], lookup: Lookup, around: Slice) -> dict[bytes, bytes | None]:
        """Return the final row bytes of every key that the records change, None for a deleted one.

        The same as RowFold says holds of what it may depend on.
        """
