"""Records as created by aiokafka's parser, taken from a fetched batch many at a time.

aiokafka copies each record into a `ConsumerRecord` of eleven fields, of which five are used here, and passes them
through a generator and a loop one by one. The copy took a quarter of the CPU of a restore, the passing another tenth
(bench/README.md). A consumer requests raw records with `key_deserializer=raw`; other consumers of the process get what
aiokafka documents. Only getmany() returns raw records.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

from tablehouse.kafka.decompressed import DecompressedBatches
from tablehouse.kafka.decompression import DECOMPRESSION
from tablehouse.kafka.record_batches import ReadRecord, UnreadableBatch, fetched_batches, read_batch
from tablehouse.model import TopicPartition
from tablehouse.tasks.log import NO_TIMESTAMP

#: The decompressed batches of all consumers of the process.
_decompressed = DecompressedBatches()


def raw(key: bytes) -> bytes:
    """Mark a consumer as one that takes raw records; never called."""
    raise AssertionError(f"raw() was called with the key {key!r}")


class _Records(PartitionRecords):  # type: ignore[misc]  # aiokafka is not typed
    """The fetched data of one partition; `next_fetch_offset` is the offset after the records taken."""

    next_fetch_offset: int
    #: The end of the log at the time of the fetch. A batch's checksum does not cover its offset.
    log_end = 1 << 63
    #: The current batch, its number, its remaining records, and the offset after it.
    _batch: Any = None
    _number = -1
    _rest: Iterator[Any] | None = None
    _after = -1
    #: Whether it is counted among the decompressed batches.
    _is_counted = False
    #: The error after the remaining records of the current batch, and the error that take() raises next.
    _broken: UnreadableBatch | None = None
    _failure: UnreadableBatch | None = None

    def take(self, max_records: int) -> list[Any]:
        """Return the next records, up to `max_records`.

        Raises UnreadableBatch if the next ones cannot be read, after all before them were returned.
        """
        # aiokafka's generator refers back to this object, so the fetched data would stay until a garbage collection.
        self._records_iterator = None
        if self._failure is not None:
            raise self._failure
        if self._is_counted:
            _decompressed.use(self)
        taken: list[Any] = []
        try:
            self._take(taken, max_records)
        except UnreadableBatch as error:
            # Also if it is raised now, since the parser has moved past the batch.
            self._failure = error
            if not taken:
                raise
        return taken

    def discard(self) -> None:
        """Discard the remaining records; take() returns no more, so they are fetched again."""
        self._records = fetched_batches(None)
        self._batch = self._rest = self._broken = None
        self._is_counted = False

    def _take(self, taken: list[Any], max_records: int) -> None:
        total = DECOMPRESSION.total
        while len(taken) < max_records and (self._rest is not None or self._next_batch()):
            try:
                piece = list(islice(self._rest or (), max_records - len(taken)))
                if piece:
                    first, after = piece[0].offset, piece[-1].offset + 1
                    if not first + len(piece) <= after <= self._after:
                        raise CorruptRecordException("the offsets of its records are invalid")  # noqa: TRY301 - calls cost time here
            except Exception as error:  # noqa: BLE001 - decompressing and parsing may raise anything
                self._read_by_record(error)
                continue
            if DECOMPRESSION.total != total:
                self._is_counted = _decompressed.hold(self, DECOMPRESSION.total - total)
                total = DECOMPRESSION.total
            if not piece:
                self._end_batch()
                continue
            if first < self.next_fetch_offset:
                # A broker sends whole batches, including records before the requested offset.
                piece = [record for record in piece if record.offset >= self.next_fetch_offset]
            taken += piece
            if after > self.next_fetch_offset:  # noqa: PLR1730 - max() costs time here
                self.next_fetch_offset = after

    def _end_batch(self) -> None:
        """Leave the current batch; raises its error, if any, after the records taken."""
        if self._is_counted:
            self._is_counted = False
            _decompressed.release(self)
        if self._broken is not None:
            raise self._broken
        self._rest = None
        # Also past offsets that compaction removed from the end of the batch, or it would be fetched again forever.
        if self._after > self.next_fetch_offset:  # noqa: PLR1730 - max() costs time
            self.next_fetch_offset = self._after

    def _next_batch(self) -> bool:
        self._batch = None
        try:
            while self._records.has_next():
                self._number += 1
                self._batch = batch = self._records.next_batch()
                if self._check_crcs and not batch.validate_crc():
                    raise CorruptRecordException("its checksum is wrong")  # noqa: TRY301 - calls cost time here
                if batch.next_offset > self.log_end:
                    raise CorruptRecordException("its offsets are beyond the end of the log")  # noqa: TRY301 - as above
                if self._holds_rows(batch):
                    # Chained, since the parser's iterator supports neither a second iter() nor next() after its end. A
                    # batch of a format without producer ids may be of one without timestamps.
                    self._rest = map(_with_timestamp, batch) if batch.producer_id is None else chain(batch)
                    self._after = batch.next_offset
                    return True
                self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
        except Exception as error:
            # A batch of an old format after newer ones is left to the next fetch, which begins with it.
            if not self._records.changes_to_old(self._number):
                raise self._unreadable((), error) from error
        return False

    def _read_by_record(self, error: Exception) -> None:
        """Read the current batch again record by record, since the parser has failed."""
        records, failure = read_batch(self._records.batch(self._number), error)
        # The record with the last offset completes the batch, regardless of any bytes after it.
        last_is_read = self.next_fetch_offset >= self._after or (records and records[-1].offset == self._after - 1)
        is_whole = failure is None or last_is_read
        self._broken = None if is_whole else self._unreadable(records, failure or error)
        self._rest = iter(records)

    def _unreadable(self, readable: Sequence[ReadRecord], cause: Exception) -> UnreadableBatch:
        """Return the error to raise after the first records of the current batch."""
        first = last = self.next_fetch_offset
        if self._batch is not None:
            last = max(last, self._batch.next_offset - 1)
            if last >= self.log_end:
                # Brokers search offsets in order, so no offset after this batch can be found.
                last = self.log_end - 1
            else:
                first = readable[-1].offset + 1 if readable else getattr(self._batch, "base_offset", first)
        return UnreadableBatch(TopicPartition(*self._tp), min(first, last), last, cause)

    def _holds_rows(self, batch: Any) -> bool:
        """Return whether a batch is neither a transaction marker nor part of an aborted transaction."""
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and _is_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return False
        return not batch.is_control_batch


class _Result(FetchResult):  # type: ignore[misc]  # aiokafka is not typed
    """A fetch result that returns raw records to consumers that requested them."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return up to `max_records` records, and move the position past them."""
        records = self._partition_records
        if max_records is None or records is None or records._key_deserializer is not raw:
            documented: list[Any] = super().getall(max_records)
            return documented
        if not self.check_assignment(self._topic_partition):
            return []
        records.log_end = self._assignment.state_value(self._topic_partition).highwater
        taken: list[Any] = records.take(max_records)
        self._update_position()
        if len(taken) < max_records:
            self._partition_records = None
        return taken


def _is_abort_marker(batch: Any) -> bool:
    """Return whether a control batch ends an aborted transaction.

    False if compaction has removed its record. The batch stays in the log, since it has the last sequence number of its
    producer.
    """
    marker = next(batch, None)
    return marker is not None and ControlRecord.parse(marker.key).type_ == ABORT_MARKER.type_


def _with_timestamp(record: Any) -> Any:
    """Return a record of an old message format, some of which have no timestamps."""
    if record.timestamp is not None:
        return record
    return ReadRecord(record.offset, NO_TIMESTAMP, record.key, record.value, record.headers)


fetcher.MemoryRecords = fetched_batches
fetcher.PartitionRecords = _Records
fetcher.FetchResult = _Result
