"""Which partitioner a table should have whose keys are not where its own puts them."""

from collections import Counter
from collections.abc import Iterable
from typing import get_args

from app.catalog.spec import PartitionerName
from app.formats.partitioners import fitting

#: Keys that are looked at in each partition: of 4 partitions, a partitioner fits 50 keys by chance once in 10^30 times.
#: fnv1a and fnv1a_reference are the same for many partitions, so one partition alone would not tell them apart.
MAX_KEYS = 50

#: Longer keys are not looked at: partitioners that are not compiled take up to 1 us a byte.
MAX_KEY_BYTES = 1024


class Suggestion:
    """The partitioners that put every key of a table that this worker has looked at where it is.

    `own` is the table's. Where it is one of them, the producers use it, and write keys in a form that the table does
    not look for.
    """

    def __init__(self, own: PartitionerName) -> None:
        self._own = own
        self._looked_at: Counter[int] = Counter()
        self.fitting: frozenset[PartitionerName] = frozenset(get_args(PartitionerName))

    @property
    def keys(self) -> int:
        """How many keys were looked at."""
        return self._looked_at.total()

    def look_at(self, keys: Iterable[bytes], partition: int, partitions: int) -> None:
        """Keep the partitioners that put each of some keys of a partition there; `partitions` is the topic's count."""
        for key in keys:
            if self._looked_at[partition] == MAX_KEYS:
                return
            if len(key) <= MAX_KEY_BYTES:
                self._looked_at[partition] += 1
                self.fitting &= fitting(key, partition, partitions)

    def __str__(self) -> str:
        looked_at = "the key looked at" if self.keys == 1 else f"the {self.keys} keys looked at"
        if self._own in self.fitting:
            return f"{self._own} fits, but the table looks for another form of a key than its producer writes"
        if not self.fitting:
            return f"no partitioner that Tablehouse knows puts {looked_at} where they are"
        names = " or ".join(f"`partitioner: {name}`" for name in sorted(self.fitting))
        they_are = "it is" if self.keys == 1 else "they are"
        return f"{names} would put {looked_at} where {they_are}: set it, and give the table a new version"
