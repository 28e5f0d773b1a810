"""The partition counts of source topics that are no longer those that this worker was started with."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from app.tasks.doubts import Doubts, Growth

log = structlog.get_logger(__name__)

#: Seconds between two looks at the partition counts that the consumer knows.
_INTERVAL = 1.0


class PartitionCounts:
    """Compares with the counts that this worker's tables are built with."""

    def __init__(self, built: Mapping[str, int], doubts: Doubts) -> None:
        self._built = built
        self._doubts = doubts

    async def watch(self, current: Callable[[], Mapping[str, int]]) -> None:
        """Look all the time whether a topic has grown, which puts the misses of its tables in doubt."""
        known: dict[str, Growth] = {}
        while True:
            grown = {
                topic: Growth(self._built[topic], now) for topic, now in current().items() if now != self._built[topic]
            }
            if grown != known:
                known = grown
                self._doubts.grown(grown)
                for topic, growth in grown.items():
                    log.error(
                        "the partition count of a source has changed; misses of its tables are no longer proof",
                        topic=topic,
                        built_with=growth.built,
                        now=growth.now,
                    )
            await asyncio.sleep(_INTERVAL)

    def agreed(self, counted: Mapping[str, int]) -> tuple[dict[str, int], Sequence[str]]:
        """Return the counts that the group's leader placed by and this worker shares, and what it does not, in words.

        They differ after a topic has grown, while workers from before and after that are in the group. Whoever hashes
        with one count would look in the wrong partition of a table that was built with the other.
        """
        differing = {topic: count for topic, count in counted.items() if self._built.get(topic, count) != count}
        disagreements = [
            f"the group's leader counts {count} partitions of {topic} and this worker {self._built[topic]}: no key of "
            "its tables can be looked up here until the workers that were started before the topic grew are restarted"
            for topic, count in differing.items()
        ]
        for disagreement in disagreements:
            log.warning("partition counts differ", reason=disagreement)
        return {topic: count for topic, count in counted.items() if topic not in differing}, disagreements
