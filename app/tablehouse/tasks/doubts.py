"""Tables whose misses are inconclusive, because keys may be in partitions where lookups do not look for them.

A lookup asks the partition that the partitioner names. One key found elsewhere shows that the producers use another
partitioner, so all misses of that table are inconclusive, in every partition and on every worker. The group's metadata
tells the other workers what one has found (kafka/engine.py), and the position records of every partition keep it. Which
partitioner would be right is known only to the workers that have read such keys, until they restart.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from tablehouse.tasks.ingest import TableCodec
from tablehouse.tasks.suggestions import Suggestion

#: The suggestion of a worker that has read no misplaced key of the table since it started.
_ASK_ITS_READER = (
    "does its producer use another one? Correct `partitioner` and give the table a new version; /readyz of the worker "
    "that read the key says which partitioner fits"
)


class Misplaced(NamedTuple):
    """The partition and offset of the first record found in another partition than the partitioner says."""

    partition: int
    offset: int


class Growth(NamedTuple):
    """A source topic's partition counts: the one that its tables were built with, and the present one."""

    topic: str
    built: int
    now: int


class Doubts:
    """What a worker knows about such tables. on_found is called for the first misplaced key of a table."""

    def __init__(self, on_found: Callable[[], None]) -> None:
        self._on_found = on_found
        self._misplaced: dict[str, Misplaced] = {}
        self._suggestions: dict[str, Suggestion] = {}
        self._grown: Mapping[str, Growth] = {}

    @property
    def misplaced(self) -> Mapping[str, Misplaced]:
        """Misplaced keys by changelog topic, which names a table in one of its versions."""
        return MappingProxyType(self._misplaced)

    def found(self, changelog: str, misplaced: Misplaced) -> None:
        """Record what a task of this worker found, in its source or in its changelog."""
        if changelog not in self._misplaced:
            self._misplaced[changelog] = misplaced
            self._on_found()

    def look_at(self, changelog: str, codec: TableCodec, keys: Sequence[bytes]) -> Suggestion:
        """Look at some keys of a table, in their wire form, and return the suggestion for the table.

        `keys` are a misplaced key of the codec's partition and keys that were read after it.
        """
        suggestion = self._suggestions.setdefault(changelog, Suggestion(codec.spec))
        suggestion.look_at(keys, codec.source.partition, codec.partitions)
        return suggestion

    def learn(self, misplaced: Mapping[str, Misplaced]) -> None:
        """Record what other workers found."""
        for changelog, first in misplaced.items():
            self._misplaced.setdefault(changelog, first)

    def grown(self, tables: Mapping[str, Growth]) -> None:
        """Replace the tables, by changelog, whose source topic's partition count has changed."""
        self._grown = tables

    def why(self, changelog: str, source: str) -> str | None:
        """Return why a miss of a table is inconclusive; None when it is not. `source` names its topics."""
        if changelog in self._misplaced:
            partition, offset = self._misplaced[changelog]
            suggestion = self._suggestions.get(changelog, _ASK_ITS_READER)
            return (
                f"the key at offset {offset} of {source}[{partition}] is in another partition than the table's "
                f"partitioner says: {suggestion}"
            )
        if changelog in self._grown:
            topic, built, now = self._grown[changelog]
            return (
                f"topic {topic} has {now} partitions and the table was built with {built}: new records may be in "
                "partitions that no worker reads, and Kafka leaves the old ones where lookups by the new count do not "
                "find them. If the topic was created again, give the table a new version. If it has grown, a new "
                f"version over this topic would not help: produce all records into a new topic of {now} partitions, "
                "and give the table that `source.topic` and a new version"
            )
        return None
