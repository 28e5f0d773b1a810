"""Tables of which a miss proves nothing, because keys may lie in partitions where nobody looks for them.

A lookup asks the partition that the partitioner names. One key found elsewhere shows that the producers use another
partitioner, so of that whole table no miss is a proof any more, whichever worker and partition is asked. What a worker
finds travels to all others with the group's metadata (kafka/engine.py), and every partition's position records keep it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Misplaced(NamedTuple):
    """The first record found in another partition than the partitioner says: its partition and source offset."""

    partition: int
    offset: int


class Growth(NamedTuple):
    """The partition counts of a source topic: what its tables were built with, and what it has now."""

    built: int
    now: int


class Doubts:
    """What a worker knows of such tables. on_found is told of a misplaced key that was not known here before."""

    def __init__(self, on_found: Callable[[], None]) -> None:
        self._on_found = on_found
        self._misplaced: dict[str, Misplaced] = {}
        self._grown: Mapping[str, Growth] = {}

    @property
    def misplaced(self) -> Mapping[str, Misplaced]:
        """Misplaced keys by changelog topic, which names a table in one of its versions."""
        return MappingProxyType(self._misplaced)

    def found(self, changelog: str, misplaced: Misplaced) -> None:
        """Take note of what a task of this worker found, in its source or in its changelog."""
        if changelog not in self._misplaced:
            self._misplaced[changelog] = misplaced
            self._on_found()

    def learn(self, misplaced: Mapping[str, Misplaced]) -> None:
        """Take note of what other workers found."""
        for changelog, first in misplaced.items():
            self._misplaced.setdefault(changelog, first)

    def grown(self, tables: Mapping[str, Growth]) -> None:
        """Replace what is known, by changelog, of tables whose source topic has another partition count by now."""
        self._grown = tables

    def why(self, changelog: str, source: str) -> str | None:
        """Say why a miss of a table proves nothing; None when it does."""
        if changelog in self._misplaced:
            partition, offset = self._misplaced[changelog]
            return (
                f"the key at offset {offset} of {source}[{partition}] lies in another partition than the table's "
                "partitioner says: does its producer use another one? Correct `partitioner` and give the table a new "
                "version"
            )
        if changelog in self._grown:
            built, now = self._grown[changelog]
            return (
                f"topic {source} has {now} partitions and the table was built with {built}: new records may lie where "
                "no worker reads, and Kafka leaves the old ones where no lookup by the new count finds them. If the "
                "topic was created again, give the table a new version. If it has grown, a new version over this topic "
                f"would not help: produce all records into a new topic of {now} partitions, and give the table that "
                "`source.topic` and a new version"
            )
        return None
