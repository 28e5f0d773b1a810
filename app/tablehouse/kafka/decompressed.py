"""What decompressed batches hold together, however many partitions are under way in one."""

from typing import Protocol
from weakref import WeakKeyDictionary

#: Smaller ones are not counted: they take what is fetched ahead anyway.
MIN_COUNTED_BYTES = 4 << 20

#: The most bytes of the others that are kept while some of their records are still to be taken, in addition to those of
#: the batch that is under way.
MAX_HELD_BYTES = 128 << 20


class Holder(Protocol):
    """What was fetched of one partition, with a batch under way."""

    def give_up(self) -> None:
        """Forget all that was not taken, so that it is fetched again."""


class DecompressedBatches:
    """Those that are held now, the one that was used last at the end."""

    def __init__(self) -> None:
        self._sizes: WeakKeyDictionary[Holder, int] = WeakKeyDictionary()

    def hold(self, holder: Holder, size: int) -> bool:
        """Count a batch that a holder has begun, if it is large; return whether it is counted.

        Those of others that were used longest ago are given up where all have too much.
        """
        # It is decompressed twice where it is read record by record.
        self._sizes.pop(holder, None)
        if size < MIN_COUNTED_BYTES:
            return False
        held = sum(self._sizes.values())
        for other, taken in list(self._sizes.items()):
            if held <= MAX_HELD_BYTES:
                break
            del self._sizes[other]
            other.give_up()
            held -= taken
        self._sizes[holder] = size
        return True

    def use(self, holder: Holder) -> None:
        """Note that records are taken of a holder's batch, which is counted."""
        self._sizes[holder] = self._sizes.pop(holder)

    def release(self, holder: Holder) -> None:
        """Forget a holder's batch, of which all was taken."""
        del self._sizes[holder]
