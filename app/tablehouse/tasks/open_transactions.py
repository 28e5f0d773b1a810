"""What an open transaction in a source keeps a task from applying, and what that means for misses."""

from tablehouse.model import TopicPartition
from tablehouse.tasks.source_ends import SourceEnds

#: Seconds for which an open transaction may hold back records before misses are in doubt. Transactions that are over
#: sooner are lag like any other.
HELD_BACK_TIMEOUT_SECONDS = 3.0


class OpenTransactions:
    """Says what is held back from a task, by the last listing of its source; `applied` is the task's position."""

    def __init__(self, source: TopicPartition, ends: SourceEnds) -> None:
        self._source = source
        self._ends = ends
        #: Where the source ended after the task's claim, with what an open transaction held back; 0 when none did.
        self.claimed_end = 0

    def held_back(self, applied: int) -> int:
        """Return how many source offsets an open transaction keeps from being applied."""
        found = self._ends.held_back()
        return 0 if found is None else max(0, found[0].high_watermark - max(found[0].end, applied + 1))

    def seconds(self, applied: int) -> float:
        """Return for how long the same open transaction has kept offsets from being applied; 0 when none does."""
        found = self._ends.held_back()
        return found[1] if found is not None and self.held_back(applied) else 0.0

    def doubt(self, applied: int) -> str | None:
        """Return why a miss proves nothing because of an open transaction; None when it does.

        It does not where records were held back at the claim and are not applied yet, and where the same transaction
        has held back records for HELD_BACK_TIMEOUT_SECONDS. Records of open transactions are none yet, so it does where
        there are no others.
        """
        found, held, missing = self._ends.held_back(), self.held_back(applied), self.claimed_end - 1 - applied
        if found is not None and held and not found[0].settled:
            # What lies before the stable end can be read, and is settled.
            missing, found = min(missing, found[0].end - 1 - applied), None
        if found is not None and held and (missing > 0 or found[1] >= HELD_BACK_TIMEOUT_SECONDS):
            return (
                f"an open transaction holds back {held} offsets of {self._source} from {found[0].end} on, those of "
                "other producers too; they are applied once it is committed or aborted, which kafka-transactions.sh "
                "can do"
            )
        if missing > 0:
            return f"{missing} offsets of {self._source} that an open transaction held back are still to be applied"
        return None
