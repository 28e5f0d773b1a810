"""Source records that an open transaction keeps a task from applying, and their effect on misses."""

from tablehouse.model import TopicPartition
from tablehouse.tasks.source_ends import SourceEnds

#: Seconds for which an open transaction may hold back records before misses are in doubt. Shorter transactions only
#: count as lag.
HELD_BACK_TIMEOUT_SECONDS = 3.0


class OpenTransactions:
    """What is held back from a task, by the last listing of its source; `applied` is the task's position."""

    def __init__(self, source: TopicPartition, ends: SourceEnds) -> None:
        self._source = source
        self._ends = ends
        #: The source's high watermark after the task's claim, if an open transaction held back records then; else 0.
        self.claimed_end = 0

    def held_back(self, applied: int) -> int:
        """Return how many source offsets an open transaction keeps from being applied."""
        found = self._ends.held_back()
        return 0 if found is None else max(0, found[0].high_watermark - max(found[0].end, applied + 1))

    def seconds(self, applied: int) -> float:
        """Return how long the same open transaction has kept offsets from being applied; 0 when none does."""
        found = self._ends.held_back()
        return found[1] if found is not None and self.held_back(applied) else 0.0

    def doubt(self, applied: int) -> str | None:
        """Return why an open transaction makes a miss inconclusive; None when it does not.

        It does while records that were held back at the claim are not applied yet, and once the same transaction has
        held back records for HELD_BACK_TIMEOUT_SECONDS. Records of open transactions do not count, so it does not if
        there are no others.
        """
        found, held, missing = self._ends.held_back(), self.held_back(applied), self.claimed_end - 1 - applied
        if found is not None and held and not found[0].settled:
            # Only records of open transactions are held back, so nothing beyond the stable end is missing.
            missing, found = min(missing, found[0].end - 1 - applied), None
        if found is not None and held and (missing > 0 or found[1] >= HELD_BACK_TIMEOUT_SECONDS):
            return (
                f"an open transaction holds back {held} offsets of {self._source} from {found[0].end} on, including "
                "those of other producers; they are applied once it is committed or aborted, which "
                "kafka-transactions.sh can do"
            )
        if missing > 0:
            return f"{missing} offsets of {self._source} that an open transaction held back are still to be applied"
        return None
