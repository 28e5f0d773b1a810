"""Reads record batches that aiokafka's parser rejects, record by record, as far as possible.

The parser rejects a whole batch because of one header name that is not UTF-8, which producers in C or Go may send.
Java's consumer replaces the invalid bytes with U+FFFD, and so does this reader. It takes about 10 us per record, so it
is only used for these batches.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint_py

from tablehouse.kafka.decompression import DecompressedTooLarge
from tablehouse.model import TopicPartition

#: Bytes of a batch up to and including its length, and the positions of the length and the format version, in every
#: message format.
_OVERHEAD, _LENGTH_AT, _MAGIC_AT = 12, 8, 16
_FIRST_WITH_HEADERS = 2
_LENGTH = struct.Struct(">i")

_INT64 = range(-(1 << 63), 1 << 63)


class UnreadableBatch(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """Offsets that exist on the broker but cannot be read: `first` to `last`, inclusive.

    If a batch begins with readable records, `first` is the offset after these. `problem` describes the error.
    `is_refused` means that the broker itself cannot read the batch, which may be transient; the last offset is then
    unknown.
    """

    def __init__(
        self, partition: TopicPartition, first: int, last: int, cause: Exception, *, is_refused: bool = False
    ) -> None:
        self.first = first
        self.last = last
        self.is_refused = is_refused
        offsets = f"offset {first}" if first == last else f"offsets {first} to {last}"
        # The text of aiokafka's errors includes their name.
        why = str(cause) if isinstance(cause, KafkaError) else f"{type(cause).__name__}: {cause}"
        self.problem = f"{offsets} of {partition} cannot be read: {why}"
        super().__init__(self.problem)


class ReadRecord(NamedTuple):
    """Implements LogRecord."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, Any]]


class FetchedBatches(MemoryRecords):  # type: ignore[misc]  # aiokafka is not typed
    """The fetched batches of one partition, each of which is also available as bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data

    def batch(self, number: int) -> bytes:
        """Return the bytes of a batch, counted from 0."""
        start = 0
        for _ in range(number):
            start = _end(self._data, start)
        return self._data[start : _end(self._data, start)]

    def changes_to_old(self, number: int) -> bool:
        """Return whether a batch has an old format, unlike the first one."""
        return _is_old(self.batch(number)) and not _is_old(self._data)


class _CutOff(FetchedBatches):
    """A batch that claims to be longer than the fetched data, although brokers send the first batch whole."""

    def has_next(self) -> bool:
        return True

    def next_batch(self) -> Any:
        raise CorruptRecordException(f"a batch claims to be longer than the {self.size_in_bytes()} bytes fetched")


def fetched_batches(data: bytes | None) -> FetchedBatches:
    """Return the batches in the fetched data of one partition.

    aiokafka assumes that all batches of a fetch have the format of the first. Batches after the old ones are left to
    the next fetch.
    """
    data = data or b""
    batches = FetchedBatches(_of_one_format(data) if _is_old(data) else data)
    return batches if batches.has_next() or not data else _CutOff(data)


def _of_one_format(data: bytes) -> bytes:
    magic, end = data[_MAGIC_AT], _end(data, 0)
    while 0 < end < len(data) - _MAGIC_AT and data[end + _MAGIC_AT] == magic:
        end = max(end + _OVERHEAD, _end(data, end))
    return data[:end] if end > 0 else data


def _is_old(data: bytes) -> bool:
    return len(data) > _MAGIC_AT and data[_MAGIC_AT] < _FIRST_WITH_HEADERS


def _end(data: bytes, start: int) -> int:
    """Return the end of the batch that begins at `start`."""
    length: int = _LENGTH.unpack_from(data, start + _LENGTH_AT)[0]
    return start + _OVERHEAD + length


def read_batch(data: bytes, error: Exception) -> tuple[list[ReadRecord], Exception | None]:
    """Return the records of a batch up to the first unreadable one, and its error; None if all are readable.

    `error` is the exception of aiokafka's parser. It is returned as is for batches of older formats, which have no
    headers, and for those that cannot be decompressed.
    """
    records: list[ReadRecord] = []
    if _is_old(data) or isinstance(error, DecompressedTooLarge):
        return records, error
    try:
        batch = _DefaultRecordBatchPy(data)
        batch._maybe_uncompress()
        source = _Bytes(batch._buffer, batch._pos)
        for _ in range(batch._num_records):
            record = _read_record(source, batch)
            _check_place(record.offset, records[-1].offset if records else batch.base_offset - 1, batch.next_offset)
            records.append(record)
        source.check_end()
    except Exception as failure:  # noqa: BLE001 - decompressing may raise anything
        return records, failure
    return records, None


class _Bytes:
    """Reads bytes sequentially; raises CorruptRecordException, IndexError and ValueError past the end."""

    def __init__(self, data: bytearray, at: int) -> None:
        self._data = data
        self.at = at

    def check_end(self) -> None:
        if self.at != len(self._data):
            raise CorruptRecordException(f"{len(self._data) - self.at} bytes follow the last record")

    def number(self) -> int:
        value: int
        value, self.at = decode_varint_py(self._data, self.at)
        return value

    def take(self, size: int) -> bytes:
        end = self.at + size
        if size < 0 or end > len(self._data):
            raise CorruptRecordException(
                f"a part of a record has {size} bytes, but {len(self._data) - self.at} are left"
            )
        taken, self.at = bytes(self._data[self.at : end]), end
        return taken

    def nullable(self) -> bytes | None:
        size = self.number()
        return None if size < 0 else self.take(size)


def _read_record(source: _Bytes, batch: _DefaultRecordBatchPy) -> ReadRecord:
    length = source.number()
    end = source.at + length
    source.take(1)  # attributes, which are unused
    timestamp, offset = batch.first_timestamp + source.number(), batch.base_offset + source.number()
    if batch.timestamp_type == DefaultRecordBase.LOG_APPEND_TIME:
        timestamp = batch.max_timestamp
    if timestamp not in _INT64:
        raise CorruptRecordException(f"a timestamp of {timestamp}")
    key, value = source.nullable(), source.nullable()
    headers = [(_name(source.take(source.number())), source.nullable()) for _ in range(source.number())]
    if source.at != end:
        raise CorruptRecordException(f"a record of {length} bytes continues {source.at - end} bytes after its end")
    return ReadRecord(offset, timestamp, key, value, headers)


def _check_place(offset: int, before: int, after: int) -> None:
    if not before < offset < after:
        raise CorruptRecordException(f"a record of offset {offset} is out of place")


def _name(data: bytes) -> str:
    return data.decode("utf-8", "replace")
