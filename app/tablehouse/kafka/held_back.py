"""Tells whether an open transaction holds back committed records, or only records of open transactions."""

from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from tablehouse.model import TopicPartition

_READ_UNCOMMITTED = 0

#: Maximum bytes of a partition per request, and maximum requests per check.
_FETCH_BYTES, _MAX_FETCHES = 1 << 20, 4


@dataclass(slots=True)
class _Scan:
    """A scan from `end` up to `reached`; `found` is the offset of the first settled batch, None if there is none."""

    end: int
    reached: int
    found: int | None = None


class HeldBack:
    """Reads the headers of the batches beyond the last stable offset, each batch once."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client
        self._scans: dict[TopicPartition, _Scan] = {}

    async def is_settled(self, leader: int, partition: TopicPartition, end: int, high_watermark: int) -> bool:
        """Return whether there may be committed or non-transactional records from `end` on.

        True if unknown: at the first check of an end, since most transactions have ended by the next one, and if one
        check cannot read that much.
        """
        scan = self._scans.get(partition)
        if scan is not None and (end < scan.end or high_watermark < scan.reached):
            # The log was truncated, as by an unclean election: there may be other batches at these offsets now.
            scan = None
        if scan is None or scan.end != end:
            reached = end if scan is None or scan.found is not None else max(end, scan.reached)
            self._scans[partition] = _Scan(end, reached)
            return True
        for _ in range(_MAX_FETCHES):
            if scan.found is not None or scan.reached >= high_watermark:
                break
            if not await self._read_on(leader, partition, scan):
                return True
        return scan.found is not None or scan.reached < high_watermark

    def forget(self, partition: TopicPartition) -> None:
        """Forget a partition that no longer has an open transaction."""
        self._scans.pop(partition, None)

    async def _read_on(self, leader: int, partition: TopicPartition, scan: _Scan) -> bool:
        """Read the batches of one response; return whether there were any."""
        wanted = [(partition.topic, [(partition.partition, scan.reached, _FETCH_BYTES)])]
        try:
            answer = await self._client.send(leader, FetchRequest(0, 0, _FETCH_BYTES, _READ_UNCOMMITTED, wanted))
        except KafkaError:
            return False
        [(_, [(_, code, *_, data)])] = answer.topics
        if code or not data:
            return False
        before = scan.reached
        try:
            _scan_batches(MemoryRecords(data), scan)
        except Exception:  # noqa: BLE001 - parsing may raise anything; the lane reports unreadable batches
            return False
        return scan.reached > before


def _scan_batches(batches: MemoryRecords, scan: _Scan) -> None:
    while scan.found is None and batches.has_next():
        batch = batches.next_batch()
        if batch.next_offset > scan.reached:
            if _is_settled(batch):
                scan.found = batch.base_offset
            scan.reached = batch.next_offset


def _is_settled(batch: object) -> bool:
    """Return whether a batch is non-transactional or commits a transaction."""
    if not getattr(batch, "is_transactional", False):
        return True
    if not getattr(batch, "is_control_batch", False):
        return False
    return all(ControlRecord.parse(record.key) != ABORT_MARKER for record in batch)  # type: ignore[attr-defined]
