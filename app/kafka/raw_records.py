"""Records as aiokafka's parser makes them, taken from a fetched batch many at a time.

aiokafka copies each record into a `ConsumerRecord` of eleven fields, of which five are used here, and hands them
through a generator and a loop one by one. The copy took a quarter of the CPU of a restore, the handing through another
tenth (bench/README.md). A consumer asks for raw records with `key_deserializer=raw`; any other one of the process gets
what aiokafka documents. Only getmany() gives raw records.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException


def raw(key: bytes) -> bytes:
    """Mark a consumer as one for raw records; never called."""
    raise AssertionError(f"the key {key!r} is to be left as it is")


class _Records(PartitionRecords):  # type: ignore[misc]  # aiokafka is not typed
    """What was fetched of one partition; `next_fetch_offset` follows what was taken of it."""

    next_fetch_offset: int
    #: The rest of the batch under way, and the offset after that batch.
    _rest: Iterator[Any] | None = None
    _after = -1

    def take(self, most: int) -> list[Any]:
        """Return the next records, `most` of them unless there are no more; raises CorruptRecordException."""
        # aiokafka's generator refers back to this, so all that was fetched would stay until garbage is collected.
        self._records_iterator = None
        taken: list[Any] = []
        while len(taken) < most and (self._rest is not None or self._next_batch()):
            piece = list(islice(self._rest or (), most - len(taken)))
            if not piece:
                # Past what compaction removed from the end of the batch too, or it would be fetched again for ever.
                self._rest, self.next_fetch_offset = None, self._after
                continue
            after = piece[-1].offset + 1
            if piece[0].offset < self.next_fetch_offset:
                # A broker sends whole batches, those records included that come before the one that was asked for.
                piece = [record for record in piece if record.offset >= self.next_fetch_offset]
            taken += piece
            self.next_fetch_offset = max(self.next_fetch_offset, after)
        return taken

    def _next_batch(self) -> bool:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(
                    f"the checksum of a batch of {self._tp} at {self.next_fetch_offset} is wrong"
                )
            if self._holds_rows(batch):
                # Chained, as the parser's iterator may not be asked for an iterator again, nor for more after its end.
                self._rest, self._after = chain(batch), batch.next_offset
                return True
            self.next_fetch_offset = batch.next_offset
        return False

    def _holds_rows(self, batch: Any) -> bool:
        """Say whether a batch is neither a marker of a transaction nor part of one that was aborted."""
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return False
        return not batch.is_control_batch


class _Result(FetchResult):  # type: ignore[misc]  # aiokafka is not typed
    """A fetch result that gives raw records to consumers that asked for them."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return up to so many records, and move the position past them."""
        records = self._partition_records
        if max_records is None or records is None or records._key_deserializer is not raw:
            documented: list[Any] = super().getall(max_records)
            return documented
        if not self.check_assignment(self._topic_partition):
            return []
        taken: list[Any] = records.take(max_records)
        self._update_position()
        if len(taken) < max_records:
            self._partition_records = None
        return taken


fetcher.PartitionRecords = _Records
fetcher.FetchResult = _Result
