"""What the writer knows of its records: which were surely in the topic at a time, and which surely not yet."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from tests.support.load import Written


class Ledger:
    """Records that were acknowledged, in this order in each partition; the topic may have others."""

    def __init__(self, written: Iterable[Written] = ()) -> None:
        self._times: dict[int, list[float]] = defaultdict(list)
        self._offsets: dict[int, list[int]] = defaultdict(list)
        self._sent: dict[tuple[int, int], float] = {}
        for record in written:
            self._times[record.partition].append(record.acknowledged)
            self._offsets[record.partition].append(record.offset)
            self._sent[record.partition, record.offset] = record.sent

    def highest(self, partition: int, time: float) -> int:
        """Return the highest offset that was acknowledged before a time, -1 for none."""
        before = bisect_left(self._times[partition], time)
        return self._offsets[partition][before - 1] if before else -1

    def may_be_there(self, partition: int, offset: int, time: float) -> bool:
        """Say whether a record can have been in the topic at a time: it had been sent, or nobody knows when it was."""
        return self._sent.get((partition, offset), time) <= time
