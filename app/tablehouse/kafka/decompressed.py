"""Limits the memory of all decompressed batches, for any number of partitions."""

from typing import Protocol
from weakref import WeakKeyDictionary

#: Smaller batches are not counted: they take no more memory than fetched data does anyway.
MIN_COUNTED_BYTES = 4 << 20

#: Maximum bytes of partly read batches that are kept, in addition to the batch being read.
MAX_HELD_BYTES = 128 << 20


class Holder(Protocol):
    """The fetched data of one partition, with a partly read batch."""

    def discard(self) -> None:
        """Discard the records not yet taken, so that they are fetched again."""


class DecompressedBatches:
    """The batches held now, in order of last use."""

    def __init__(self) -> None:
        self._sizes: WeakKeyDictionary[Holder, int] = WeakKeyDictionary()

    def hold(self, holder: Holder, size: int) -> bool:
        """Count a batch that a holder has begun to read, if it is large; return whether it is counted.

        If the total is over the limit, the least recently used batches of other holders are discarded.
        """
        # A batch that is read record by record is decompressed twice.
        self._sizes.pop(holder, None)
        if size < MIN_COUNTED_BYTES:
            return False
        held = sum(self._sizes.values())
        for other, taken in list(self._sizes.items()):
            if held <= MAX_HELD_BYTES:
                break
            del self._sizes[other]
            other.discard()
            held -= taken
        self._sizes[holder] = size
        return True

    def use(self, holder: Holder) -> None:
        """Record that a holder's counted batch was used."""
        self._sizes[holder] = self._sizes.pop(holder)

    def release(self, holder: Holder) -> None:
        """Forget a holder's batch, which was read to its end."""
        del self._sizes[holder]
