"""Suggests a correction of the definition of a table whose keys are not where lookups look for them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

from tablehouse.catalog.spec import PartitionerName, SourceSpec, SpellingName
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.keys import JsonKey
from tablehouse.formats.partitioners import fitting

#: Keys that are checked in each partition. With 4 partitions, a partitioner fits 50 keys by chance once in 10^30 times.
#: fnv1a and fnv1a_reference agree in many partitions, so keys of a single partition may not tell them apart.
MAX_KEYS = 50

#: Longer keys are not checked: partitioners that are not compiled take up to 1 us a byte.
MAX_KEY_BYTES = 1024


class Suggestion:
    """The partitioners and spellings that fit every key of a table that this worker has checked.

    A partitioner fits a key that it puts into the partition where the key is. A spelling fits a JSON key that it writes
    as it is. `source` is the table's present definition.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._looked_at: Counter[int] = Counter()
        self.partitioners: frozenset[PartitionerName] = frozenset(get_args(PartitionerName))
        self._spelled = _Spelled(source) if source.key.format == "json" else None

    @property
    def keys(self) -> int:
        """The number of keys checked."""
        return self._looked_at.total()

    def look_at(self, keys: Iterable[bytes], partition: int, partitions: int) -> None:
        """Keep only what fits these keys of a partition too; `partitions` is the topic's partition count."""
        for key in keys:
            if self._looked_at[partition] == MAX_KEYS:
                return
            if len(key) <= MAX_KEY_BYTES:
                self._looked_at[partition] += 1
                self.partitioners &= fitting(key, partition, partitions)
                if self._spelled is not None:
                    self._spelled.look_at(key)

    def __str__(self) -> str:
        if self.keys == 0:
            return "the keys are too long to try which `partitioner` would fit"
        one = self.keys == 1
        looked_at = "the key looked at" if one else f"the {self.keys} keys looked at"
        they_are = "it is" if one else "they are"
        advice = []
        if self._source.partitioner not in self.partitioners:
            names = " or ".join(f"`partitioner: {name}`" for name in sorted(self.partitioners))
            advice.append(
                f"{names} would put {looked_at} where {they_are}"
                if names
                else f"no partitioner that Tablehouse knows puts {looked_at} where {they_are}, and `partitioner: any` "
                "reads such topics"
            )
        if self._spelled is not None and self._spelled.others:
            names = " or ".join(f"`spellings: [{', '.join(some)}]`" for some in self._spelled.fitting)
            advice.append(
                f"with {names} the table would look for {looked_at} as {they_are} written"
                if names
                else f"no spelling of JSON that Tablehouse knows writes {looked_at} as {they_are}: are the members in "
                "the order of `fields`? With `partitioner: any` keys are found however they are written"
            )
        if not advice:
            advice.append(
                "the partitioner fits, but keys are written in another form than the table looks for, such as uuids in "
                "upper case: with `partitioner: any` keys are found however they are written"
            )
        return f"{'; and '.join(advice)}. Correct the definition, and give the table a new version"


class _Spelled:
    """The spellings that fit each JSON key checked; `others` counts the keys that none of the table's own fits."""

    def __init__(self, source: SourceSpec) -> None:
        self._keys = JsonKey(source.key)
        self._own = source.key.spellings
        self._of_all: frozenset[SpellingName] = frozenset(get_args(SpellingName))
        self._of_others = self._of_all
        self.others = 0

    def look_at(self, key: bytes) -> None:
        """Check a key; one that cannot be decoded is ignored, because it cannot be in the table."""
        try:
            spellings = self._keys.spellings_of(key)
        except DecodeError:
            return
        self._of_all &= spellings
        if spellings.isdisjoint(self._own):
            self.others += 1
            self._of_others &= spellings

    @property
    def fitting(self) -> list[Sequence[SpellingName]]:
        """The lists of spellings to suggest: single ones that fit all keys, else the present ones and one more."""
        if self._of_all:
            return [(name,) for name in sorted(self._of_all)]
        return [(*self._own, name) for name in sorted(self._of_others)]
