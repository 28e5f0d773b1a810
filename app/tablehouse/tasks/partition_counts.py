"""Partition counts of source topics, and tables that were built with a count other than their topic's current one."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from tablehouse.catalog.spec import Catalog
from tablehouse.tasks.definitions import changelog_topic
from tablehouse.tasks.doubts import Doubts, Growth

log = structlog.get_logger(__name__)

#: Seconds between checks of the consumer's partition counts.
_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The partition counts that a worker uses.

    `now` is the current count of each source topic, and `shards` the count that tables are served with, by shard name.
    `built` is the count that each table was or will be built with, and `sources` the table's topics, both by changelog.
    `held` are the tables that are not served, because their count is not that of their shards.
    """

    now: Mapping[str, int]
    shards: Mapping[str, int]
    built: Mapping[str, int]
    sources: Mapping[str, tuple[str, ...]]
    held: frozenset[str]

    def with_more(self, more: "Counts") -> "Counts":
        """Return these counts combined with newer ones, which replace those that both have."""
        return Counts(
            now={**self.now, **more.now},
            shards={**self.shards, **more.shards},
            built={**self.built, **more.built},
            sources={**self.sources, **more.sources},
            held=self.held | more.held,
        )

    def only(self, catalog: Catalog, group: str) -> "Counts":
        """Return the counts of the tables of one catalog only."""
        names = {changelog_topic(group, table) for table in catalog.tables.values()}
        return replace(
            self,
            now={topic: self.now[topic] for topic in catalog.topics},
            shards={name: self.shards[name] for name in catalog.shard_names},
            built={name: count for name, count in self.built.items() if name in names},
            sources={name: topics for name, topics in self.sources.items() if name in names},
            held=self.held & catalog.tables.keys(),
        )


def settle(catalog: Catalog, group: str, now: Mapping[str, int], changelogs: Mapping[str, int]) -> Counts:
    """Choose the count that the tables of each shard name are served with, given the counts of existing changelogs.

    `now` has the counts of all source topics, which are the same for topics whose tables are sharded together. A table
    keeps the count that it was built with if that of its topics changes: its rows are served and its misses are in
    doubt. If another table of the shard name is new or was built with the current count, that count is used, and the
    older tables are not served.
    """
    names = {table.name: changelog_topic(group, table) for table in catalog.tables.values()}
    shards: dict[str, int] = {}
    for name in catalog.shard_names:
        together = catalog.tables_in(name)
        count = now[together[0].topics[0]]
        found = [changelogs.get(names[table.name]) for table in together]
        earlier = [built for built in found if built is not None]
        shards[name] = count if None in found or count in found or not earlier else max(earlier)
    tables = catalog.tables.values()
    built = {names[table.name]: changelogs.get(names[table.name], now[table.topics[0]]) for table in tables}
    return Counts(
        now=now,
        shards=shards,
        built=built,
        sources={names[table.name]: table.topics for table in tables},
        held=frozenset(table.name for table in tables if built[names[table.name]] != shards[table.shard_name]),
    )


class PartitionCounts:
    """Compares this worker's partition counts with those of the brokers and of the group's leader."""

    def __init__(self, counts: Counts, doubts: Doubts) -> None:
        self._counts = counts
        self._doubts = doubts
        self._now = dict(counts.now)
        self._grown: Mapping[str, Growth] = {}
        self._compare()

    @property
    def shards(self) -> Mapping[str, int]:
        """The count that tables are served with, by shard name, as one mapping that does not change."""
        return self._counts.shards

    def follow(self, counts: Counts) -> None:
        """Use other counts from now on, because tables were added or removed."""
        self._now |= {topic: count for topic, count in counts.now.items() if topic not in self._counts.now}
        self._counts = counts
        self._compare()

    async def watch(self, current: Callable[[], Mapping[str, int]]) -> None:
        """Watch for topics that grow, which puts the misses of their tables in doubt."""
        while True:
            self._now.update(current())
            self._compare()
            await asyncio.sleep(_INTERVAL)

    def _compare(self) -> None:
        grown = {
            changelog: Growth(topic, built, now)
            for changelog, built in self._counts.built.items()
            for topic in self._counts.sources[changelog]
            if (now := self._now[topic]) != built
        }
        if grown == self._grown:
            return
        self._grown = grown
        self._doubts.grown(grown)
        for changelog, growth in grown.items():
            log.error(
                "the partition count of a source has changed; misses of its table are inconclusive",
                topic=growth.topic,
                changelog=changelog,
                built_with=growth.built,
                now=growth.now,
            )

    def agreed(self, counted: Mapping[str, int]) -> tuple[dict[str, int], dict[str, str]]:
        """Return the leader's counts that agree with this worker's, by shard name, and a message about each other.

        They differ after a topic has grown, while some workers of the group have a new version of its table and others
        do not. With the wrong count, a worker would look for keys in the wrong partitions.
        """
        shards = self._counts.shards
        differing = {name: count for name, count in counted.items() if shards.get(name, count) != count}
        disagreements = {
            name: f"the group's leader uses {count} partitions of {name} and this worker {shards[name]}: keys of "
            "its tables cannot be looked up here until all workers have the same tables.yaml"
            for name, count in differing.items()
        }
        for disagreement in disagreements.values():
            log.warning("partition counts differ", reason=disagreement)
        return {name: count for name, count in counted.items() if name not in differing}, disagreements
